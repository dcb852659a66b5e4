"""Fakes of Google Cloud's services on loopback: the documented protocol, kept in memory."""
