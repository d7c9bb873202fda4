"""What an event type does to a profile when it does nothing of its own: aggregates and sessions see it all the same."""

from __future__ import annotations

from profiles.state import Profile
from profiles.wire import Event


def nothing(profile: Profile, event: Event) -> None:
    """Change nothing."""
