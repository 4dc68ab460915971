"""Maildirs: their listing, their messages, and what QUIT does to them.

`names` knows what a file's name says; `storage`, `reading`, `creation` and `maildirsize` do all
that is done to files, and `work` is all of it for one session. These are plain calls and the
standard library only, as they run in processes that have rights. `hands`, `mailbox` and `message`
are their asynchronous front. Neither POP3 nor LDAP may enter: the protocol knows of this room what
`qmailldap.interfaces` says.
"""
