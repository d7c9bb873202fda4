"""Makes letters of moments, with links that tell Opportune who opened, clicked and unsubscribed.

    python moments.py … | python letters.py --at https://t.shop.example --from shop@shop.example --into outbox

One file to copy, which needs ``PyJWT`` beside Python. ``--at`` is where the collector is reached from outside; the key, one of its
``OPPORTUNE_LINK_KEYS``, stands in the environment variable ``LINK_KEY``. Each letter is a file in the folder; how it is sent, and
what it says, is yours.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from email.message import EmailMessage
from html import escape
from pathlib import Path
from typing import Any

import jwt

READ = {"click": "c", "open": "o", "unsubscribe": "u"}


def link(record: dict[str, Any], purpose: str, at: str, key: str, **more: str) -> str:
    """A signed link of the letter that a moment becomes.

    Args:
        record: the moment as it was published.
        purpose: ``click`` (with its ``url``), ``open`` or ``unsubscribe``.
        at: where the collector is reached.
        key: that signs.
    """
    said = {"topic": record["topic"], "trigger_id": record["trigger_id"], "campaign": record["trigger"]}
    who = {"aud": purpose, "sub": record["profile"]["address"]}
    return f"{at}/{READ[purpose]}/{jwt.encode({**who, **said, **more}, key, 'HS256')}"


def letter(record: dict[str, Any], sender: str, at: str, key: str) -> EmailMessage:
    """The letter of a moment, with a button for unsubscribing in every mail program (RFC 8058)."""
    message = EmailMessage()
    message["From"], message["To"] = sender, record["profile"]["email"]
    message["Subject"] = record["template"]
    unsubscribe = link(record, "unsubscribe", at, key)
    message["List-Unsubscribe"] = f"<{unsubscribe}>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    lines = []
    for item in _goods(record["payload"]):
        name, url = str(item.get("name") or item["product_id"]), item.get("url")
        told = escape(name)
        lines.append(f'<a href="{link(record, "click", at, key, url=url)}">{told}</a>' if url else told)
    body = "".join(f"<p>{line}</p>" for line in lines)
    picture = f'<img src="{link(record, "open", at, key)}" width="1" height="1" alt="">'
    message.set_content(f"{record['template']}\n\nUnsubscribe: {unsubscribe}\n")
    message.add_alternative(f'{body}<p><a href="{unsubscribe}">Unsubscribe</a></p>{picture}', subtype="html")
    return message


def _goods(payload: Any) -> list[dict[str, Any]]:
    """All that a payload names as a product, wherever it stands."""
    if isinstance(payload, list):
        return [item for one in payload for item in _goods(one)]
    if not isinstance(payload, dict):
        return []
    return [payload] if "product_id" in payload else _goods(list(payload.values()))


def main() -> None:
    """Read moments from standard input, one JSON object a line, and write letters into a folder."""
    asked = argparse.ArgumentParser(description=main.__doc__)
    asked.add_argument("--at", required=True)
    asked.add_argument("--from", required=True, dest="sender")
    asked.add_argument("--into", required=True, type=Path)
    options = asked.parse_args()
    options.into.mkdir(exist_ok=True)
    for line in sys.stdin:
        record = json.loads(line)
        if record["profile"].get("email"):
            made = letter(record, options.sender, options.at, os.environ["LINK_KEY"])
            (options.into / f"{record['trigger_id']}.eml").write_bytes(made.as_bytes())


if __name__ == "__main__":
    main()
