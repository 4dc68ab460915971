"""The UNIX socket of ``--admin``: who is on, who is to go, how things stand.

`client` is the side of the commands, and loads no Twisted; the others are the server's.
"""
