"""How a row becomes an event: a mapping is data, a YAML page that somebody who knows the file can write.

    name: online_retail
    file: {kind: csv, header: true}
    identify: {user: $CustomerID}
    time: {from: $InvoiceDate, format: "%m/%d/%y %H:%M", zone: Europe/London}
    reject:
      - {reason: no_customer, if: {CustomerID: {missing: true}}}
    duplicates: drop
    group: [$InvoiceNo]
    events:
      - event: order_completed
        message_id: {concat: [order-, $InvoiceNo]}
        properties: {order_id: $InvoiceNo, currency: GBP}
        lines: {product_id: $StockCode, quantity: $Quantity, price: $UnitPrice}

A value is ``$Column`` (``"${Order ID}"`` when the name is no word; inside JSON ``$a.b``, of a list ``$a.0.b``), a constant, or
one function of ``FUNCTIONS`` by its name: ``{lower: $Country}``. Nothing else: no arithmetic in text, no code. ``$_row`` is
the row's number in the file, ``$_file`` names the file by its content. ``$$5`` is the text ``$5``. Inside JSON
``{each: [$lines, {sku: $code}]}`` is a list: what it says of each entry, whose own fields ``$code`` then names.

Rows with equal ``group`` values are one event: ``properties`` are read from the first of them, ``lines`` from each.
The first of ``events`` whose ``when`` holds is taken; it may have an ``identify`` and a ``time`` of its own. Every mistake of
a page is reported at once, at its line.
"""

from connectors.mapping.binding import Bound, BoundEvent, Row, bind
from connectors.mapping.functions import FUNCTIONS, TESTS
from connectors.mapping.model import FileFormat, FileMapping
from connectors.mapping.page import read_mapping

__all__ = ["FUNCTIONS", "TESTS", "Bound", "BoundEvent", "FileFormat", "FileMapping", "Row", "bind", "read_mapping"]
