"""The node with a depth-estimation model: loaded when it is configured, and a bad folder is one sentence."""


def test_a_bad_folder_fails_to_configure_with_one_sentence(stage, tmp_path):
    s = stage(geometry_model=str(tmp_path / 'none'))
    assert not s.node.autostart()
    reason = s.node.status().reason
    assert reason.startswith('There is no folder') and 'config.json' in reason and '\n' not in reason
    assert s.warnings('Cannot configure: There is no folder')


def test_what_the_model_lacks_is_listed_as_missing(stage, depth_model_folder):
    s = stage(geometry_model=str(depth_model_folder)).camera('left', 'right').activate()
    s.send_until(lambda: s.node.last_frame is not None)
    (sentence,) = s.node.last_frame.missing
    assert sentence.startswith('geometry_model is not used') and 'wrist camera is unknown' in sentence
    assert sentence in s.node.status().missing
