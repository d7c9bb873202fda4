"""Sessions: a visit lasts until ``gap_ms`` pass without the person's own act, and ends at that very instant."""

from __future__ import annotations

from profiles.state import SESSION, Profile, Session

TIMER = "session"


def touch(profile: Profile, event_type: str, at_ms: int, gap_ms: int) -> bool:
    """A person's own act: open a session, or go on with it.

    The caller has let a session end that was due before. An act earlier than the session's end by less than the
    gap belongs to it, however late it is told; one that lies before it changes nothing.

    Returns:
        Whether this act opened a session.
    """
    session = profile.session
    opened = session is None
    if session is None:
        session = profile.session = Session(at_ms)
    elif at_ms < session.start_ms - gap_ms:
        return False
    elif at_ms > session.last_ms:
        session.last_ms = at_ms
    elif at_ms < session.start_ms:
        session.start_ms = at_ms
    session.counts[event_type] = session.counts.get(event_type, 0) + 1
    profile.timers[TIMER] = session.last_ms + gap_ms
    profile.dirty |= SESSION
    return opened


def end(profile: Profile) -> Session:
    """The session is over: take it out."""
    session = profile.session
    assert session is not None
    profile.session = None
    profile.timers.pop(TIMER, None)
    profile.dirty |= SESSION
    return session


def joined(a: Session | None, b: Session | None) -> Session | None:
    """The session of two profiles that are one person: both visits together."""
    if a is None or b is None:
        return a or b
    both = Session(min(a.start_ms, b.start_ms))
    both.last_ms = max(a.last_ms, b.last_ms)
    both.counts = dict(a.counts)
    for name, count in b.counts.items():
        both.counts[name] = both.counts.get(name, 0) + count
    return both
