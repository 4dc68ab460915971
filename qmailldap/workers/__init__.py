"""Several processes that serve the same ports, and the one that starts them.

The process that twistd starts becomes the *supervisor*: it binds the ports, has *workers* started,
each of them a whole server of its own, and starts one again that ends. It reads nothing of the
network, of a directory or of a mailbox. What a worker is given of the supervisor's is told by
`Inheritance`: descriptors, and nothing else.
"""
