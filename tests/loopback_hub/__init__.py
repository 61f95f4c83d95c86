"""A Hugging Face Hub on loopback: the real client publishes to it and loads from it."""

from .accounts import ACCOUNTS, Account
from .environment import client_environment
from .faults import Fault
from .server import LoopbackHub

__all__ = ["ACCOUNTS", "Account", "Fault", "LoopbackHub", "client_environment"]
