"""What we keep of where an event happened: a short list, bounded, nothing else of what SDKs send along.

```
page      path, url, referrer, title             (a page view has these in its properties: not twice)
campaign  source, medium, name, term, content; ``click`` names the advertiser's click id, not its value; ``referrer`` is
          the host that led here from outside. Whoever names no source has that of the click or the referrer
locale, timezone
device    phone, tablet, desktop or bot, from the user agent, which is not kept
consent   category -> true or false, as the page's consent banner says
place     country, region, city, if the installation has a locator
ip        only if the installation says so
```
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from profiles.payloads import TEXT_CHARS_MAX, URL_CHARS_MAX

PAGE: Final = ("path", "url", "referrer", "title")
CAMPAIGN: Final = ("source", "medium", "name", "term", "content")
_ADVERTISERS: Final = {
    "gclid": ("google", "cpc"), "wbraid": ("google", "cpc"), "gbraid": ("google", "cpc"), "yclid": ("yandex", "cpc"),
    "ymclid": ("yandex", "cpc"), "fbclid": ("facebook", "social"), "msclkid": ("bing", "cpc"), "ttclid": ("tiktok", "cpc"),
    "twclid": ("twitter", "cpc"),
}  # fmt: skip
CLICK_IDS: Final = tuple(_ADVERTISERS)
_SEARCH: Final = ("google", "yandex", "bing", "duckduckgo", "baidu", "yahoo", "ecosia", "ya")
NO_REFERRER: Final = "$direct"
"""What RudderStack's browser SDK writes for none."""

WORD_CHARS_MAX: Final = 64
CONSENTS_MAX: Final = 20
PAIRS_MAX: Final = 100

_UTM: Final = {"utm_source": "source", "utm_medium": "medium", "utm_campaign": "name", "utm_term": "term",
               "utm_content": "content"}  # fmt: skip
_BOTS: Final = ("bot", "crawl", "spider", "slurp", "headless", "lighthouse", "facebookexternalhit")
_GATEWAYS: Final = (
    "barracuda", "proofpoint", "mimecast", "bitdefender", "symantec", "trendmicro", "trend micro", "forcepoint", "fireeye",
    "ironport", "sophos", "urlscan", "safelinks", "curl/", "wget/", "python-requests", "python-urllib", "aiohttp", "go-http-client",
    "java/", "libwww", "axios", "node-fetch",
)  # fmt: skip
"""Gateways that look at letters before anybody reads them, and programs of no browser."""


def keep(sent: Mapping[str, Any], url: str, is_page: bool, referrer: str = "") -> dict[str, Any]:
    """What we keep of an event's ``context``.

    Args:
        sent: the context as sent.
        url: the page's address, from context or properties, for its campaign; may be empty.
        is_page: the properties say which page; ``page`` is left out.
        referrer: the address of the page before, for where the visit came from; may be empty.
    """
    kept: dict[str, Any] = {}
    if not is_page and type(page := sent.get("page")) is dict:
        texts = _texts(page, PAGE)
        if texts:
            kept["page"] = texts
    said = sent.get("campaign")
    campaign = _texts(said, CAMPAIGN) if type(said) is dict else {}
    if url and "?" in url:
        campaign = {**campaign_of(url[:URL_CHARS_MAX]), **campaign}
    if "source" not in campaign and (url or referrer):
        campaign = {**came_from(campaign.get("click", ""), url, referrer), **campaign}
    if campaign:
        kept["campaign"] = campaign
    for name in ("locale", "timezone"):
        word = sent.get(name)
        if type(word) is str and word:
            kept[name] = word[:WORD_CHARS_MAX]
    agent = sent.get("userAgent")
    if type(agent) is str and agent:
        device = device_of(agent[:TEXT_CHARS_MAX])
        if device:
            kept["device"] = device
    consent = sent.get("consent")
    if type(consent) is dict and type(categories := consent.get("categoryPreferences")) is dict:
        chosen = {
            name[:WORD_CHARS_MAX]: yes for name, yes in list(categories.items())[:CONSENTS_MAX] if type(yes) is bool
        }
        if chosen:
            kept["consent"] = chosen
    return kept


def campaign_of(url: str) -> dict[str, str]:
    """The campaign that a page's address names, by its ``utm_`` parameters and click ids."""
    try:
        pairs = parse_qsl(urlsplit(url).query, max_num_fields=PAIRS_MAX)
    except ValueError:
        return {}
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in _UTM:
            found[_UTM[name]] = value[:TEXT_CHARS_MAX]
        elif name in CLICK_IDS:
            found["click"] = name
    return found


def came_from(click: str, url: str, referrer: str) -> dict[str, str]:
    """Source and medium of a visit whose campaign names none: by the click id, else by the referrer's host.

    Moving about on the site itself comes from nowhere.
    """
    host = _host(referrer)
    here = _host(url)
    if not host or (here and f".{here}".endswith(f".{host}")) or f".{host}".endswith(f".{here or '-'}"):
        host = ""
    outside = {"referrer": host} if host else {}
    if click:
        source, medium = _ADVERTISERS[click]
        return {"source": source, "medium": medium, **outside}
    if not host:
        return {}
    for engine in _SEARCH:
        if f".{host}".find(f".{engine}.") >= 0:
            return {"source": engine, "medium": "organic", **outside}
    return {"source": host, "medium": "referral", **outside}


def _host(url: str) -> str:
    try:
        host = urlsplit(url[:URL_CHARS_MAX]).hostname or ""
    except ValueError:
        return ""
    return host.removeprefix("www.")[:WORD_CHARS_MAX]


@lru_cache(maxsize=4096)
def device_of(agent: str) -> str:
    """``phone``, ``tablet``, ``desktop``, ``bot``, or nothing when the user agent does not tell."""
    text = agent.lower()
    if any(word in text for word in _BOTS):
        return "bot"
    if "ipad" in text or "tablet" in text or ("android" in text and "mobi" not in text):
        return "tablet"
    if "mobi" in text or "iphone" in text or "ipod" in text:
        return "phone"
    return "desktop" if text.startswith("mozilla/") else ""


@lru_cache(maxsize=4096)
def machine_of(agent: str) -> str:
    """Of who opened a message or followed its link: ``prefetch`` or ``scanner``, or nothing when it may be a person.

    The proxies of Gmail and Yahoo fetch a picture when somebody opens the message: behind these is a person.
    """
    text = agent.lower().strip()
    if text == "mozilla/5.0":
        return "prefetch"  # Apple Mail Privacy Protection names no more of itself, and fetches whether anybody reads or not.
    return "scanner" if any(word in text for word in (*_BOTS, *_GATEWAYS)) else ""


def _texts(sent: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    return {
        name: value[: URL_CHARS_MAX if name in ("url", "referrer") else TEXT_CHARS_MAX]
        for name in names
        if type(value := sent.get(name)) is str and value and value != NO_REFERRER
    }
