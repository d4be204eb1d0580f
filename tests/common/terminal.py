"""Runs a program on a terminal of its own, and plays the person in front of it.

usage: terminal.py PROGRAM [ARGUMENT...] -- [EXPECTED TYPED]...

Waits each time until what the program has shown since then ends with EXPECTED, and types TYPED, in
which \\n is the enter key and \\x04 is ctrl-D. Then waits for the program to end, prints all that it
showed, and ends with its exit code. The terminal echoes nothing and changes no line end, so that
what is printed is what the program said.
"""
import os
import pty
import signal
import subprocess
import sys
import termios

cut = sys.argv.index("--")
program, play = sys.argv[1:cut], sys.argv[cut + 1 :]
signal.alarm(60)

master, slave = pty.openpty()
attributes = termios.tcgetattr(slave)
attributes[1] &= ~termios.OPOST
attributes[3] &= ~termios.ECHO
termios.tcsetattr(slave, termios.TCSANOW, attributes)
child = subprocess.Popen(
    program, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
)
os.close(slave)


def read():
    try:
        return os.read(master, 65536)
    except OSError:  # EIO: nobody has the other side open any more.
        return b""


shown = b""
for expected, typed in zip(play[::2], play[1::2]):
    fresh = b""
    while not fresh.endswith(expected.encode()):
        piece = read()
        if not piece:
            sys.exit("it ended before it showed {!r}; it showed {!r}".format(expected, shown + fresh))
        fresh += piece
    shown += fresh
    os.write(master, typed.replace("\\n", "\n").replace("\\x04", "\x04").encode())
while True:
    piece = read()
    if not piece:
        break
    shown += piece
sys.stdout.buffer.write(shown)
sys.stdout.flush()
sys.exit(child.wait())
