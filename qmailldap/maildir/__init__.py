"""Maildirs: their listing, their messages, and what QUIT does to them.

`names` knows what a file's name says. `storage` and `scanning` list, open and remove messages,
`reading` reads them; `dot_qmail` finds the mailbox of a local user, `creation` and `dirmaker` make
what is missing of one; `maildirsize` and `counting` keep its quota file. `work` is all of that for
one session. These are plain calls and the standard library only, and little of it, as they run in
processes that have rights. `hands`, `mailbox` and `message` are their asynchronous front, and
`listings` keeps what sessions find for those that come after them. Neither POP3 nor LDAP may enter:
the protocol knows of this room what `qmailldap.interfaces` says.
"""
