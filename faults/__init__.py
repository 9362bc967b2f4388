"""Suites that damage real runs of `launch.py` and check what remains.

kill.py       kill -9 at chosen points and random moments
corrupt.py    damaged checkpoints
retention.py  saves and kills: which checkpoints are there afterwards
layouts.py    devices and processes, stopped and killed
images.py     every kind of picture that a folder may hold
troubles.py   folders that one would have to guess about, paths, terminals that close
soak.py       a long run: memory, files, threads
harness.py, victim.py
              the small run that they use, and the process that kills itself
"""
