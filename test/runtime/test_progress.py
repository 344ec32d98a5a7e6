"""Progress in a log is lines, and on a terminal one line that is drawn over."""

import io

from wristworld_ros.runtime.progress import ProgressBar


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_lines_without_carriage_returns():
    log = io.StringIO()
    with ProgressBar(total=500, desc='converting', unit='episode', file=log) as bar:
        for _ in range(500):
            bar.update()
    text = log.getvalue()
    assert '\r' not in text and text.endswith('\n')
    assert 1 <= len(text.splitlines()) <= 3
    assert '500/500' in text.splitlines()[-1] and text.startswith('converting: ')


def test_what_clears_a_line_leaves_none_in_a_log():
    log = io.StringIO()
    for _ in ProgressBar(range(3), desc='checking', leave=False, file=log):
        pass
    assert all(line.strip() for line in log.getvalue().splitlines()) and '\r' not in log.getvalue()


def test_a_terminal_gets_a_bar():
    terminal = _Terminal()
    with ProgressBar(total=2, file=terminal, mininterval=0, ncols=60) as bar:
        bar.update()
        bar.update()
    assert '\r' in terminal.getvalue() and '2/2' in terminal.getvalue()
