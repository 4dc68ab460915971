"""Every line that the package logs: what it means, what is in it, and what is to be done about it.

The reference of the documentation is made from this table. A test holds it and the calls that log
together: one row for each format, of the level and the kind that it is logged with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from qmailldap.log_words import words_of
from qmailldap.loglevel import Kind

__all__ = ["FIELDS", "LINES", "Line"]

NOTHING = "nothing"

_REPORT = "please report it, with the traceback: it is a fault of this program"

FIELDS: Mapping[str, str] = {
    "user": "the login name as the client sent it; empty where it sent none",
    "peer": "the client's address, without its port; local: by a UNIX socket",
    "session": "the id of the session: the same in all of its lines, on all members",
    "mailhost": "the member that keeps the mail, by the name that the record has",
    "member": "the address and the port of the machine that greeted",
    "method": "how the client said who it is: pass, plain, login, cram-md5, apop",
    "tls": "no, the version of TLS, or proxy where a proxy in front has spoken it",
    "mailbox": "the path of the Maildir",
    "path": "the path of the mailbox",
    "problem": "what went wrong",
    "error": "what went wrong",
    "why": "the reason",
    "server": "the directory server, as ldapserver names it",
    "result": "success, a result code of LDAP, given-up when its time was up, or what went wrong",
    "seconds": "how long it took",
    "uid": "the number of the owner",
    "gid": "the number of the owner's group",
    "doubt": "the file and what is doubtful about it",
    "changed": "the names of the files whose contents differ",
    "limit": "how long was waited for it, in seconds",
}
"""What a field means, by its name, where a row does not say it otherwise."""


@attrs.frozen(kw_only=True)
class Line:
    """One line.

    ``format`` is that of the code, up to what is added to it at times: the fields that are are in
    ``fields``, with those that mean more here than `FIELDS` says. ``bits`` are those of LOGLEVEL
    that show it, each by itself; none where it is always shown. ``todo`` is for the administrator.
    """

    format: str
    level: str
    bits: Kind
    means: str
    todo: str = NOTHING
    fields: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def event(self) -> str:
        return words_of(self.format).event

    @property
    def shown(self) -> str:
        """The line with an ellipsis in the place of each value."""
        return re.sub(r"\{[^{}]*\}", "…", self.format)

    @property
    def all_fields(self) -> dict[str, str]:
        """What each field means, by its name, in the order of the line."""
        names = [*words_of(self.format).names, *self.fields]
        return {name: self.fields.get(name) or FIELDS.get(name, "") for name in names}


_WORKER = "the number of the worker"
_WAY = {"method": FIELDS["method"], "tls": FIELDS["tls"]}
_FACTS = {
    "facts": "the fields file, names and until: the file, the names in it, its last day",
    "file": "the file",
    "names": "for which hosts it is",
    "until": "its last day",
}

_E, _W, _L, _A = Kind.ERRORS, Kind.WARNINGS, Kind.LOGINS, Kind.ACTIONS
_D, _DM, _Q, _C = Kind.DEBUG, Kind.DEBUG_MORE, Kind.DIRECTORY, Kind.DIRECTORY_MORE

LINES: tuple[Line, ...] = (
    # Sessions, in their order.
    Line(
        format="connect peer={peer} session={session} at={at}",
        level="info",
        bits=_A,
        means="a client has come and is greeted",
        fields={"at": "the address and the port that it came to"},
    ),
    Line(
        format="xclient peer={peer} session={session} before={before} by={by}",
        level="info",
        bits=_A,
        means="a member or a proxy that is trusted has said for whom it speaks: peer and session"
        " are from now on those that it told",
        fields={
            "before": "the id that the session had in the connect line",
            "by": "the address of the one who says so",
        },
    ),
    Line(
        format="handshake peer={peer} session={session} problem={problem}",
        level="info",
        bits=_A,
        means="a client came for TLS, and the two did not agree: a version or a cipher too old, a"
        " certificate that the client does not take",
        todo="if many have it: look at the certificate, by its name and by its end",
    ),
    Line(
        format="login user={user} peer={peer} session={session} messages={messages}"
        " octets={octets}",
        level="info",
        bits=_L,
        means="a client is let in; its mailbox is here",
        fields={
            "messages": "how many are in the mailbox",
            "octets": "of all of them",
            **_WAY,
        },
    ),
    Line(
        format="login user={user} peer={peer} session={session} mailhost={mailhost}"
        " member={member}",
        level="info",
        bits=_L,
        means="a client is let in, by the member that keeps its mail; the session goes on there",
        fields=_WAY,
    ),
    Line(
        format="login user={user} peer={peer} session={session} uid={uid} mailbox={mailbox}"
        " subprogram={subprogram}",
        level="info",
        bits=_L,
        means="of auth_pop: the session is left to the program, as the owner of the mail",
        fields={"subprogram": "which program"},
    ),
    Line(
        format="refused user={user} peer={peer} session={session} reason={reason} detail={detail}",
        level="info, warn or error",
        bits=_L | _W | _E,
        means="a login or a connection is refused; as a warning or an error where something is"
        " broken, and shown by that bit, too",
        todo="see the reason among the refusals; wrong passwords are the client's own affair",
        fields={
            "reason": "a row of the table of refusals",
            "detail": "what the client is not told: which file, which server, what was wrong",
        },
    ),
    Line(
        format="abandoned user={user} peer={peer} session={session}",
        level="info",
        bits=_L,
        means="the client left before its login was judged; its password was not wrong",
        todo="if there are many: logins take too long; look at the directory",
    ),
    Line(
        format="logout user={user} peer={peer} session={session} end={end} retrieved={retrieved}"
        " octets={octets} deleted={deleted} left={left}",
        level="info",
        bits=_L,
        means="a session has ended; unless by quit, nothing was deleted",
        todo="nothing; where end is failed, see the line failed of the session",
        fields={
            "end": "quit; disconnected, idle, message-failed, failed; stopped by the server's end,"
            " kicked by the administrator",
            "retrieved": "messages that were sent as a whole",
            "octets": "of messages that were sent",
            "deleted": "messages that were removed",
            "left": "messages that remain",
        },
    ),
    Line(
        format="logout user={user} peer={peer} session={session} end={end} mailhost={mailhost}"
        " seconds={seconds:.1f} sent={sent} received={received}",
        level="info",
        bits=_L,
        means="a session that another member has served has ended",
        todo="nothing; where end is member-lost and that is often so, look at the network between",
        fields={
            "end": "member-closed, as usual after QUIT; client-closed; client-lost, member-lost"
            " where a connection broke; idle, stopped, kicked",
            "seconds": "how long it lasted",
            "sent": "octets to the client",
            "received": "octets from it",
        },
    ),
    Line(
        format="failed what={what} user={user} peer={peer} session={session}",
        level="critical",
        bits=_E,
        means="a fault of this program; the session was ended, and no message is lost",
        todo=_REPORT,
        fields={"what": "login, command, update"},
    ),
    Line(
        format="update user={user} peer={peer} session={session} problem={problem}",
        level="warn",
        bits=_W,
        means="QUIT could not use the mailbox, or lost its keeper over it; the client was told, and"
        " what is not deleted is there the next time",
        todo="mend what the problem names: a disk that is full, rights, a hung file system",
    ),
    Line(
        format="message user={user} peer={peer} session={session} uid={uid} problem={problem}",
        level="warn",
        bits=_W,
        means="a message could not be opened, or not be sent to its end",
        todo="look at the file, whose name begins with what is before the comma of uid",
        fields={"uid": "its unique-id"},
    ),
    # Mailboxes.
    Line(
        format="mailbox path={path} made=what-was-missing",
        level="info",
        bits=_A,
        means="the Maildir or a folder of it was made, and the home if it was missing, too",
        fields={"made": "what-was-missing"},
    ),
    Line(
        format="mailbox path={path} problem={problem} count={count} first={first}",
        level="warn",
        bits=_W,
        means="something could not be done to files of the mailbox; the session went on",
        todo="look at rights and owner of the file, and at the disk",
        fields={
            "problem": "not-removed, not-moved-to-cur; not-cleaned: old files of tmp/; quota:"
            " maildirsize",
            "count": "how many files",
            "first": "the first of them, and why",
        },
    ),
    # Other members.
    Line(
        format="forwarding user={user} session={session} mailhost={mailhost} member={member}"
        " tls={tls} xclient={xclient}",
        level="info",
        bits=_A,
        means="a member is about to be asked for the login",
        fields={
            "tls": "yes; no where none is wanted, or the member knows none",
            "xclient": "yes where the member trusts this host, and is told the client and the id of"
            " the session",
        },
    ),
    Line(
        format="member {machine} is down: {trouble}",
        level="warn",
        bits=_W,
        means="a machine of the cluster does not greet; it is passed over for a while",
        todo="see whether it runs, and whether it can be reached from here",
        fields={"machine": "its address and port", "trouble": "how it was found out"},
    ),
    Line(
        format="member {machine} is up again",
        level="info",
        bits=_W,
        means="a machine that was down has greeted",
        fields={"machine": "its address and port"},
    ),
    # How a login was decided.
    Line(
        format="found user={user} entries=0",
        level="debug",
        bits=_D,
        means="the directory has no entry for the login",
        fields={"entries": "how many there are"},
    ),
    Line(
        format="found user={user} entries={entries} dn={dn}",
        level="debug",
        bits=_D,
        means="an entry of the directory that has the login",
        fields={"entries": "how many there are; more than one are refused", "dn": "its DN"},
    ),
    Line(
        format="record user={user} {attributes}",
        level="debug",
        bits=_DM,
        means="what counts of the entry: all but userPassword",
        fields={
            "attributes": "each attribute by its name; none where the record has none of them. In"
            " JSON one of several values is a list"
        },
    ),
    Line(
        format="proof user={user} by={how} password={proved}",
        level="debug",
        bits=_D,
        means="the password was compared",
        fields={
            "by": "the scheme of the hash; bind; passwd",
            "password": "right, wrong, or unknown-user of passwd",
        },
    ),
    Line(
        format="account user={user} mail=here uid={uid} gid={gid} home={home} mailbox={mailbox}"
        " quota={quota}",
        level="debug",
        bits=_D,
        means="what the record comes to",
        fields={
            "mail": "here",
            "home": "the home directory",
            "quota": "as in maildirsize, or none",
        },
    ),
    Line(
        format="account user={user} mail=elsewhere mailhost={mailhost}",
        level="debug",
        bits=_D,
        means="the mail is kept by another member",
        fields={"mail": "elsewhere"},
    ),
    Line(
        format="defaults user={user} {taken}",
        level="debug",
        bits=_DM,
        means="the control files that say what the record does not",
        fields={"taken": "the value of each, by the name of the file"},
    ),
    Line(
        format="addresses mailhost={mailhost} host={host} port={port} addresses={addresses}",
        level="debug",
        bits=_D,
        means="where a member is looked for",
        fields={
            "host": "its name, by the routes",
            "port": "its port",
            "addresses": "all that the name has, with commas between",
        },
    ),
    # The directory.
    Line(
        format='search server={server} base={base} filter="{filter}" entries={entries}'
        " result={result} seconds={seconds:.3f}",
        level="debug",
        bits=_Q,
        means="a search has ended. Logins of the same name at the same time share one, which is of"
        " the session that was first",
        todo="if seconds are many: see whether uid and objectClass are indexed",
        fields={
            "base": "the search base",
            "filter": "as ldapsearch takes it",
            "entries": "how many were found",
            "seconds": "how long it took, with the wait for a connection",
        },
    ),
    Line(
        format="bind server={server} dn={dn} result={result} seconds={seconds:.3f}",
        level="debug",
        bits=_Q,
        means="a bind has ended: of a user, or the server's own, which is of no session",
        fields={"dn": "as whom; the server's own is ldaplogin"},
    ),
    Line(
        format="connection server={server} became={became} searching={searching}"
        " rebinding={rebinding}",
        level="debug",
        bits=_C,
        means="a connection to the directory has changed",
        fields={
            "became": "opened, secured, lost",
            "searching": "how many there are for searches",
            "rebinding": "how many there are for rebinds",
            "why": "of one that is lost",
        },
    ),
    Line(
        format="directory server {server} is down: {reason}; next try in {pause:.0f} s",
        level="warn",
        bits=_W,
        means="a directory server does not answer; logins go to the next one",
        todo="see whether it runs, and whether it can be reached from here",
        fields={"reason": "how it was found out", "pause": "seconds until it is tried again"},
    ),
    Line(
        format="directory server {server} is of no use: {reason}; next try in {pause:.0f} s",
        level="error",
        bits=_E,
        means="it answers, and refuses the bind of ldaplogin, or TLS, or its certificate will not"
        " do",
        todo="mend what the reason names: ldaplogin and ldappassword, ldaptls, a certificate",
        fields={"reason": "what it refuses", "pause": "seconds until it is tried again"},
    ),
    Line(
        format="directory server {server} is up again",
        level="info",
        bits=_W,
        means="one that was down or of no use has answered",
    ),
    Line(
        format="directory server {server} {complaint}",
        level="warn",
        bits=_W,
        means="it answers, but oddly; told once an hour at most",
        todo="see what the complaint names in that server's own configuration and log",
        fields={"complaint": "what is odd"},
    ),
    Line(
        format="directory server {server} cannot be probed",
        level="critical",
        bits=_E,
        means="a fault of this program; the server is tried again",
        todo=_REPORT,
    ),
    # What is configured.
    Line(
        format="control {doubt}",
        level="warn",
        bits=_W,
        means="a control file can be used, but should be looked at",
        todo="look at the file; qmailldap showctl --check tells the same",
    ),
    Line(
        format="control {doubt}",
        level="warn",
        bits=_D,
        means="the same, of auth_pop: not at each login, unless it is asked for",
        todo="look at the file; qmailldap showctl --check tells the same",
    ),
    Line(
        format="control loaded changed={changed}",
        level="info",
        bits=_W,
        means="after SIGHUP: control files and certificates were read, and are in force",
    ),
    Line(
        format="control waits: logins under way ask {count} earlier states",
        level="warn",
        bits=_W,
        means="after SIGHUP, not the first in a short time: logins that began before those ask what"
        " was in force then; the files are read when some of them are over, in a server of one"
        " process; a worker waits for 20 seconds",
        todo="find out why logins take so long: a directory server that is slow, most likely",
        fields={"count": "how many states of the control files are waited for at the most"},
    ),
    Line(
        format="control was not loaded, what was in force stays so: {why}",
        level="error",
        bits=_E,
        means="after SIGHUP: something cannot be used; nothing was changed",
        todo="mend the file that is named, and send SIGHUP again",
        fields={"why": "the file, the line and what is wrong with it"},
    ),
    Line(
        format="control is not read before a worker serves: none does now",
        level="warn",
        bits=_W,
        means="after SIGHUP: what workers begin with is what was in force; files are read when one"
        " has begun",
        todo="nothing, at a start; where no worker comes to serve, see their last lines, and start"
        " the server anew",
    ),
    Line(
        format="control was not loaded",
        level="critical",
        bits=_E,
        means="after SIGHUP: a fault of this program; what was in force stays so",
        todo=_REPORT,
    ),
    Line(
        format="generation not let go",
        level="critical",
        bits=_E,
        means="a fault of this program, when what was in force before a SIGHUP was let go",
        todo=_REPORT,
    ),
    Line(
        format="environment {problem}",
        level="warn",
        bits=Kind(0),
        means="at the start: LOGLEVEL is no number; told whatever it is",
        todo="give it a number",
        fields={"problem": "the variable, its value, and what counts instead"},
    ),
    Line(
        format="limits {doubt}",
        level="warn",
        bits=_W,
        means="there may be fewer connections than pop3limits wants",
        todo="have the server started with a higher hard limit of open files (ulimit -Hn)",
        fields={"doubt": "connections=, the number that is in force, and why"},
    ),
    # Certificates.
    Line(
        format="certificate loaded {facts}",
        level="info",
        bits=_W,
        means="a certificate was replaced; new connections are shown this one",
        fields=_FACTS,
    ),
    Line(
        format="certificate unchanged",
        level="info",
        bits=_W,
        means="after SIGHUP, or when a fault is gone: the files are what they were",
    ),
    Line(
        format="certificate not loaded, that from before stays: {fault}",
        level="error",
        bits=_E,
        means="the files are not what they should be; clients are shown the one from before",
        todo="mend the file that is named; it is found by itself, or at once by SIGHUP",
        fields={"fault": "the file, and what is wrong with it"},
    ),
    Line(
        format="certificate not read",
        level="critical",
        bits=_E,
        means="a fault of this program; clients are shown the one from before",
        todo=_REPORT,
    ),
    Line(
        format="certificate {doubt}",
        level="warn",
        bits=_W,
        means="what clients may not like about a certificate",
        todo="renew it, or have it issued for the right names",
        fields={"doubt": "the file, and what it is"},
    ),
    Line(
        format="certificate none is left: no client is offered TLS any more",
        level="warn",
        bits=_W,
        means="after SIGHUP: cert.pem is gone",
        todo="put it back, if that was not meant, and send SIGHUP again",
    ),
    Line(
        format="certificate of another server cannot be read",
        level="critical",
        bits=_E,
        means="a fault of this program; the other server was not believed",
        todo=_REPORT,
    ),
    # Rights, and the processes that have them.
    Line(
        format="rights network={uid}:{gid} mailboxes=their-owners",
        level="info",
        bits=_A,
        means="root's rights were given up",
        fields={
            "network": "user and group of the process that speaks to the network",
            "mailboxes": "with whose rights they are worked on",
        },
    ),
    Line(
        format="rights network={uid}:{gid} mailboxes=own-only passwd-users=no, not started as root",
        level="info",
        bits=_A,
        means="there were no rights of root: only mailboxes of this user can be served",
        todo="start it as root, if the mail has several owners",
        fields={
            "network": "user and group of the process that speaks to the network",
            "mailboxes": "with whose rights they are worked on",
            "passwd-users": "whether users of passwd are let in",
        },
    ),
    Line(
        format="rights groups={groups} are kept as well: --user would give them up",
        level="warn",
        bits=_W,
        means="twistd's --uid has left the process in further groups",
        todo="use --user instead",
        fields={"groups": "their numbers, with commas between"},
    ),
    Line(
        format="rights {user} cannot read {file}: what Python has not loaded by now cannot be;"
        " better install where everyone may read, as below /opt",
        level="warn",
        bits=_W,
        means="Python or the package is installed where only root may read",
        todo="install it where everyone may read",
        fields={"user": "as whom the server goes on", "file": "one of the files"},
    ),
    Line(
        format="rights {how}: the server cannot go on",
        level="critical",
        bits=_E,
        means="the broker has ended, and with it the server: no mailbox could be opened any more",
        todo="have a supervisor start it again; see the line broker before",
        fields={"how": "the exit code or the signal"},
    ),
    Line(
        format="broker said={line}",
        level="warn",
        bits=_W,
        means="what the broker, a keeper or dirmaker had to say: a keeper that ended with a signal,"
        " a request that was refused",
        todo="see what it says; a traceback is a fault of this program",
        fields={"said": "one line of it"},
    ),
    Line(
        format="broker did not end within {limit:.0f} s",
        level="warn",
        bits=_W,
        means="at the end: something that it was asked for hangs, as on a lost file system",
        todo="see which file system hangs",
    ),
    Line(
        format="keeper uid={uid} gid={gid} problem=lost, it is killed",
        level="warn",
        bits=_W,
        means="a keeper did not answer; what it was asked for failed",
        todo="see whether the owner's file system hangs",
    ),
    Line(
        format="keeper uid={uid} not killed: {error}",
        level="warn",
        bits=_W,
        means="one that was to be killed could not be",
        todo="see whether it is still there, and kill it",
    ),
    Line(
        format="passwd no hash can be timed: {error}",
        level="warn",
        bits=_W,
        means="crypt(3) fails: users of passwd and unknown names may be told apart by time",
        todo="see whether libcrypt of the host works",
    ),
    Line(
        format="scores of wrong passwords are not kept: {problem}",
        level="error",
        bits=_E,
        means="the file of --guesses cannot be read or written any more; guesses are not counted",
        todo="look at its file system; start the server again",
    ),
    Line(
        format="pbs tool={tool} problem={problem}",
        level="warn",
        bits=_W,
        means="of auth_pop: the program of -d failed; the session went on",
        todo="run the program by hand",
        fields={"tool": "the program", "problem": "how it ended"},
    ),
    Line(
        format="arguments {delivery} is no path of a mailbox: {default} is made where there is"
        " none",
        level="warn",
        bits=_W,
        means="of auth_pop: the last argument of its subprogram cannot be a mailbox",
        todo="correct the arguments in the script that calls it",
        fields={"delivery": "that argument", "default": "what counts instead"},
    ),
    # Start and end.
    Line(
        format="threads {name} did not end within {limit:g} s",
        level="warn",
        bits=_W,
        means="at the end: work under way was broken off; every step on disk is whole or not done",
        todo="see which file system or name server hangs",
        fields={"name": "mail, hash, or names: those that look up host names"},
    ),
    Line(
        format="stop sessions={sessions}",
        level="info",
        bits=_A,
        means="the server is being stopped, and so many sessions are still there",
        fields={"sessions": "how many"},
    ),
    Line(
        format="stop cut-off={sessions}",
        level="warn",
        bits=_W,
        means="so many sessions were busy to the end of --grace, and were cut off; nothing of them"
        " was deleted",
        todo="a longer --grace, if that is often so",
        fields={"cut-off": "how many"},
    ),
    Line(
        format="kicked who={who} sessions={sessions} by-uid={uid} by-pid={pid}",
        level="info",
        bits=_L,
        means="the administrator has ended sessions, by qmailldap kick",
        fields={
            "who": "the user or the session that was named",
            "sessions": "how many were ended",
            "by-uid": "whose process asked for it",
            "by-pid": "which process that was",
        },
    ),
    Line(
        format="watchdog is told nothing for now: {fault}",
        level="error",
        bits=_E,
        means="under systemd: not all is alive; if that lasts, systemd ends the server",
        todo="see which worker it is, and what it does; often a file system hangs",
        fields={"fault": "who does not answer"},
    ),
    Line(
        format="watchdog a look at the server failed",
        level="critical",
        bits=_E,
        means="under systemd: a fault of this program; systemd is not told how the server does, and"
        " ends it if that lasts",
        todo=_REPORT,
    ),
    Line(
        format="watchdog the service manager cannot be told: {error}",
        level="warn",
        bits=_W,
        means="the socket that NOTIFY_SOCKET names cannot be used",
        todo="see NotifyAccess of the unit; a chroot may hide the socket",
    ),
    Line(
        format="admin a question was not answered",
        level="critical",
        bits=_E,
        means="a fault of this program, in answer to qmailldap sessions, kick or status",
        todo=_REPORT,
    ),
    Line(
        format="status path={path}",
        level="critical",
        bits=_E,
        means="a fault of this program, in answer to a request to --status",
        todo=_REPORT,
        fields={"path": "what was asked for"},
    ),
    Line(
        format="status the page was not made",
        level="critical",
        bits=_E,
        means="a fault of this program, in the status page",
        todo=_REPORT,
    ),
    # Workers.
    Line(
        format="workers count={count} are started",
        level="info",
        bits=_A,
        means="the supervisor starts its workers",
        fields={"count": "how many"},
    ),
    Line(
        format="workers worker={number} has ended with {how}: another is started in {again:.0f} s",
        level="error",
        bits=_E,
        means="a worker has ended by itself, and its sessions with it",
        todo="see its last lines; a signal 9 may be the kernel's, for want of memory",
        fields={
            "worker": _WORKER,
            "how": "the exit code or the signal",
            "again": "seconds until another is started",
        },
    ),
    Line(
        format="workers worker={number} is ended: {why}",
        level="error",
        bits=_E,
        means="a worker does not do what all others do; another is started in its place",
        todo="see its last lines",
        fields={"worker": _WORKER},
    ),
    Line(
        format="workers worker={number} was killed: it did not end within {limit:g} s",
        level="warn",
        bits=_W,
        means="the server is being stopped, and a worker has taken longer than --grace",
        todo="often a file system hangs; no message is lost",
        fields={"worker": _WORKER, "limit": "the seconds of --grace, 1 at least"},
    ),
    Line(
        format="workers cannot start: {problem}",
        level="critical",
        bits=_E,
        means="what a worker found wrong at its start; it is tried again",
        todo="mend what is named",
    ),
    Line(
        format="workers a worker cannot start",
        level="critical",
        bits=_E,
        means="a fault of this program; it is tried again",
        todo=_REPORT,
    ),
    Line(
        format="workers question={question} was not answered: {why}",
        level="error",
        bits=_E,
        means="a fault of this program: a worker was asked for its figures, say",
        todo="please report it",
        fields={"question": "what was asked"},
    ),
    Line(
        format="workers worker={number} told figures that are none: {why}",
        level="error",
        bits=_E,
        means="what a worker had counted is lost; it has ended",
        todo="please report it",
        fields={"worker": _WORKER},
    ),
    Line(
        format="output line={line}",
        level="warn",
        bits=_W,
        means="what a worker or a library in it wrote without the log: a message of Python, of a"
        " loader",
        todo="see what it says",
        fields={"line": "one line of it"},
    ),
    Line(
        format="log lines={count} were lost",
        level="warn",
        bits=_W,
        means="the supervisor did not read what a worker had to log for so long that there was no"
        " room for more",
        todo="see whether the disk of the log, or syslogd, is too slow",
        fields={"lines": "how many"},
    ),
)
"""Of the last two neither has a call: they are made where a worker's lines arrive."""
