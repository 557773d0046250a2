"""snapbreaker: a circuit breaker for changes to a Linux machine."""

__version__ = "0.1.0"
