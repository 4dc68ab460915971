"""The tests of qmailldap, which mirror the package."""

from hypothesis import HealthCheck, settings

# How long one example takes says nothing of the code: the host may be busy with others.
settings.register_profile("qmailldap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qmailldap")
