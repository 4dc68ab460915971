"""Sessions whose mail another member of the cluster keeps: the way there, and the relay.

It knows who the client is and what it has proved, and of POP3 what a login needs; nothing of
directories and mailboxes.
"""

from qmailldap.forward.forwarder import ForwardedSession, Forwarder
from qmailldap.forward.limits import ForwardLimits
from qmailldap.forward.tls import ClusterTLS

__all__ = ["ClusterTLS", "ForwardLimits", "ForwardedSession", "Forwarder"]
