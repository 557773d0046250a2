"""Which tools run, told by the command lines of processes."""

from __future__ import annotations

import os
import sys

from snapbreaker.linux.process import command_line
from snapbreaker.monitor.programs import programs_running


def test_a_command_line_is_read() -> None:
    words = command_line(os.getpid())
    assert words
    assert os.path.basename(words[0]).startswith(os.path.basename(sys.executable)[:6])
    assert command_line(2**22 + 1) == []


def test_scripts_modules_and_titles() -> None:
    assert "ansible-playbook" in programs_running(
        [["/usr/bin/python3", "-u", "/usr/bin/ansible-playbook", "s.yml"]]
    )
    assert "pip" in programs_running([["/usr/bin/python3", "-m", "pip", "install", "x"]])
    assert programs_running([["npm install express"]]) == {"npm"}
    assert programs_running([["bash", "-e", "/srv/deploy.sh"]]) == {"bash", "deploy.sh"}
    assert programs_running([["apt-get", "update"], [""]]) == {"apt-get", ""}
