"""Certificates: ours, which clients are shown, and how those of others are verified.

Nothing here knows of POP3, LDAP or the members of a cluster, nor who has the right to read a file.
"""
