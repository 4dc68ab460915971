"""Hostile input by machine: the whole server on a network without a kernel, and what may be sent.

`world` is the server with all that is around it, `actions` are what can be done to it, `targets`
are the ways in for octets that anybody has made up. tests/pop3/test_fuzz.py runs them with
hypothesis, ``make fuzz`` with atheris.
"""
