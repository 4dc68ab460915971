"""The service that listens for ``--admin``, in a server by itself, its supervisor, or a worker."""

from __future__ import annotations

from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.interfaces import IProtocolFactory

from qmailldap.admin.path import PrivateSocket, bind_private
from qmailldap.listening import OpenEndpoint
from qmailldap.workers.ports import adopt

__all__ = ["AdminListener"]


class AdminListener(StreamServerEndpointService):
    """Listens on ``path``. The file is removed at the end, where we still may.

    ``endpoint`` opens endpoints: in a worker, what it opens is there already.
    """

    def __init__(
        self, reactor: Any, path: str, factory: IProtocolFactory, endpoint: OpenEndpoint
    ) -> None:
        self._private = _PrivateSockets(reactor)
        description = f"unix:{quoteStringArgument(path)}"
        super().__init__(endpoint(self._private, description), factory)
        # As twisted.application.strports has it: who starts it learns that it cannot listen.
        self._raiseSynchronously = True
        self.setName(f"--admin {path}")

    async def _stop(self) -> None:
        await super().stopService()
        if self._private.bound is not None:
            self._private.bound.remove()

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())


class _PrivateSockets:
    """A reactor whose UNIX sockets are their owner's alone.

    Twisted's own are made with the rights that the umask leaves, and have their mode a moment
    later; and their file is removed at the end by somebody who may have become another user.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.bound: PrivateSocket | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenUNIX(self, path: str, factory: IProtocolFactory, *_: object, **__: object) -> Any:
        """Raises `PathTaken` and ``OSError``."""
        self.bound = bind_private(path)
        return adopt(self._reactor, self.bound.socket.detach(), factory)
