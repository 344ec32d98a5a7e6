import argparse
from dataclasses import dataclass

import pytest

from wristworld_ros.options import add_options, from_options
from wristworld_ros.setting import setting
from wristworld_ros.settings import NodeSettings, StreamSettings


def parse(record, arguments, **options):
    parser = argparse.ArgumentParser()
    add_options(parser, record, **options)
    return from_options(record, parser.parse_args(arguments))


def test_without_options_the_record_is_its_defaults():
    assert parse(StreamSettings, []) == StreamSettings()
    assert parse(NodeSettings, []) == NodeSettings()


def test_every_kind_of_field_is_parsed():
    settings = parse(
        NodeSettings, ['--chunk', '4', '--near', '0.1', '--anchors', 'a', 'b', '--no-publish-tf', '--device', 'cpu']
    )
    assert (settings.chunk, settings.near, settings.anchors, settings.publish_tf, settings.device) == (
        4,
        0.1,
        ['a', 'b'],
        False,
        'cpu',
    )


def test_a_value_that_is_no_choice_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(StreamSettings, ['--device', 'tpu'])
    assert 'tpu' in capsys.readouterr().err


def test_fields_that_are_not_offered_keep_their_defaults():
    assert parse(StreamSettings, ['--chunk', '2'], only=('chunk',)) == StreamSettings(chunk=2)


def test_help_tells_documentation_and_default_even_with_a_percent_sign():
    @dataclass
    class Record:
        share: float = setting(0.5, 'How many % of it.')

    parser = argparse.ArgumentParser()
    add_options(parser, Record)
    assert 'How many % of it. Default: 0.5.' in ' '.join(parser.format_help().split())
