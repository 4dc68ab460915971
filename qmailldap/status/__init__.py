"""What ``--status`` serves by HTTP: how the server does, for programs and for people."""
