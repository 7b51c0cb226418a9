"""A shell with job control, as small as it can be: it starts one job on the terminal that is its standard input.

    python shell.py COMMANDS ANSWERS WORD...      two descriptors: of a pipe to read from, of one to write to

Each line it reads is a command, answered by a line:

    start        start the words as a job in the foreground; the answer is its process id
    fg, bg       put the job, or the shell itself, in the foreground of the terminal
    line         read a line from the terminal, as a shell does for its prompt
    reader       start in the job's process group a process that reads from the terminal; the answer: how it ended
    writer       the same with one that writes
    tostop       stty tostop
    wait         wait for the job; the answer is its exit status
"""

import fcntl
import os
import signal
import sys
import termios


def member(group: int, work: str) -> int:
    """A process in this group, with default signals."""
    pid = os.fork()
    if not pid:
        os.setpgid(0, group)
        for number in (signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_DFL)
        code = "import os; os.read(0, 1)" if work == "reader" else "import os; os.write(1, b'.')"
        os.execv(sys.executable, [sys.executable, "-S", "-E", "-c", code])
    return pid


def main() -> None:
    commands, answers = (int(word) for word in sys.argv[1:3])
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    job = 0
    with os.fdopen(commands) as lines:
        for line in lines:
            answer = "done"
            match line.strip():
                case "start":
                    job = os.fork()
                    if not job:
                        os.setpgid(0, 0)
                        os.tcsetpgrp(0, os.getpid())
                        for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGINT, signal.SIGQUIT):
                            signal.signal(number, signal.SIG_DFL)
                        os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
                    answer = str(job)
                case "fg":
                    os.tcsetpgrp(0, job)
                case "bg":
                    os.tcsetpgrp(0, os.getpgrp())
                case "line":
                    answer = os.read(0, 1000).decode().strip()
                case "reader" | "writer" as work:
                    pid = member(job, work)
                    _, status = os.waitpid(pid, os.WUNTRACED)
                    answer = f"stopped by {os.WSTOPSIG(status)}" if os.WIFSTOPPED(status) else f"ended {status}"
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                case "tostop":
                    attributes = termios.tcgetattr(0)
                    attributes[3] |= termios.TOSTOP
                    termios.tcsetattr(0, termios.TCSANOW, attributes)
                case "wait":
                    answer = str(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
            os.write(answers, answer.encode() + b"\n")


if __name__ == "__main__":
    main()
