"""The server as its users meet it: real twistd, real slapd, real mail programs, real files."""
