"""What a whole machine is beyond its files: packages, units, accounts, listening sockets.

They are recorded with a checkpoint (``state``), and follow the files in a rollback (``rollback``). Everything
here makes system calls only: no program of the machine is run, so nothing depends on what a command broke.
"""
