"""A page or a screen was seen."""

from __future__ import annotations

from profiles.changes import nothing
from profiles.payloads import Payload, Text, named
from profiles.spec import EventType, Example
from profiles.wire import PAGE_VIEWS


class PageViewed(Payload):
    """What a page call carries; ``path`` is read from the address when it is not sent."""

    path: Text = named("path", "page_path")
    url: Text = named("url", "page_location", "href")
    referrer: Text = named("referrer", "page_referrer")
    title: Text = named("title", "page_title")
    name: Text = named("name", "screen_name", "firebase_screen")
    category: Text = None
    content_type: Text = named("content_type", "content_group")

    def finish(self) -> None:
        """Take the path out of the address."""
        if self.path is None and self.url is not None:
            _, found, rest = self.url.partition("://")
            if found:
                path = rest.partition("#")[0].partition("?")[0].partition("/")[2]
                self.__dict__["path"] = "/" + path


SPEC = EventType(
    name="page_viewed",
    topic=PAGE_VIEWS,
    says="a page or a screen was seen",
    payload=PageViewed,
    change=nothing,
    aliases=("page", "page_view", "pageview", "screen", "screen_view", "screen_viewed", "viewed page"),
    activity=True,
    examples=(
        Example(
            raw={"path": "/blog/drills", "url": "https://shop.example/blog/drills", "referrer": "", "title": "Drills"},
            props={"path": "/blog/drills", "url": "https://shop.example/blog/drills", "title": "Drills"},
        ),
        Example(
            raw={"page_location": "https://shop.example/sale?utm_source=x#top", "page_title": "Sale"},
            props={"path": "/sale", "url": "https://shop.example/sale?utm_source=x#top", "title": "Sale"},
        ),
    ),
)
