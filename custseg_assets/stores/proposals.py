"""Proposals: which column may be the one that is missing, from its values and its name. None is ever read unasked."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

N_SAMPLED = 1000
"""Rows that proposals are made from."""

_COMMON_NAMES = {
    "customer_id": (
        "customer",
        "customerno",
        "customernumber",
        "client",
        "clientid",
        "custid",
        "user",
        "userid",
        "buyer",
        "buyerid",
        "member",
        "memberid",
        "email",
        "card",
        "cardno",
    ),
    "invoiced_at": (
        "date",
        "orderdate",
        "invoicedate",
        "purchasedate",
        "transactiondate",
        "createdat",
        "timestamp",
        "datetime",
    ),
    "line_amount": ("amount", "netamount", "sales", "linetotal", "total", "revenue", "value", "totalprice"),
    "quantity": ("qty", "units", "count"),
    "unit_price": ("price", "itemprice", "rate"),
}
"""Names that are proposed first: a column ``total`` may be that of the whole invoice."""

_LIKELY_NAMES = {
    "customer_id": "cust|client|user|buyer|member|mail|card|shopper|guest|kund|cliente|account|contact|phone|loyalty",
    "invoiced_at": "date|time|datum|fecha|created|day|when|sold|purchased",
    "line_amount": "amount|sales|total|revenue|value|net|gross|paid|betrag|umsatz|summe|montant|importe",
    "quantity": "qty|quant|units|count|menge|pieces|items",
    "unit_price": "price|rate|preis|prix|precio",
}
_PRICE_NAMES = r"price|preis|prix|precio|prezzo|prijs"
_UNLIKELY_NAMES = {
    "customer_id": "store|shop|order|invoice|receipt|product|item|sku|country|city|status|type|group|segment",
    "invoiced_at": "birth|updated|modified|ship|deliver|due|cancel|refund",
    "line_amount": "refund|tax|vat|discount|shipping|fee|cost|tip|balance|rate",
    "quantity": "refund|return",
    "unit_price": "refund|tax|vat|discount|shipping|fee|cost",
}

_ID_ENDING = "(?:id|no|nr|num|number|nummer|numero|número|numéro|ref|reference|code|key)"
_OPTIONAL_NAMES = {
    "invoice_id": "invoice|order|receipt|ticket|bill$|basket|session|rechnung|beleg|bestell|commande|facture|pedido",
    "product_id": "sku|product|article|stockcode|artikel|^item|producto|produit",
}
_CERTAIN_NAMES = {
    "invoice_id": (
        r"^(?:sales?|web|shop|pos|customer)?(?:invoice|order|receipt|ticket|rechnungs?|beleg|bon|kassenbon"
        r"|bestell(?:ungs?)?|auftrags?|commande|facture|pedido|factura|recibo|ordine|fattura|scontrino|bestelling|factuur"
        rf"|ordre|kvittering|kvitto)s?{_ID_ENDING}?$"
        rf"|^(?:transaction|trans|txn|bill|basket){_ID_ENDING}$|^transaction$"
        r"|^(?:n|no|nr|num|numero|número|numéro|id)(?:de|di)?(?:commande|facture|pedido|factura|ordine|fattura)$"
    ),
    "product_id": (
        r"^(?:line)?(?:item|product|variant)?(?:sku|ean|gtin|asin|upc|barcode|plu|stockcode)$"
        rf"|^(?:product|item|article|artikel|produkt|produit|producto|articulo|prodotto|variant){_ID_ENDING}$"
    ),
    "description": (
        r"^(?:line)?(?:product|item|article|artikel|produkt|produit|producto|articulo|prodotto|variant)s?"
        r"(?:s?name|title|titel|desc(?:ription)?|s?bezeichnung)$"
        r"|^(?:description|bezeichnung|beschreibung|designation|désignation|libellé|descripción|descrizione|omschrijving)$"
    ),
}
"""Names, of letters and digits only, that can hardly mean anything else."""
_NO_ID = (
    "date|time|day|status|state|type|amount|total|price|qty|quant|count|discount|tax|name|desc|categ|brand|line|note"
)
"""Names of what is told of an order or a product, besides its id."""

_FEE_NAMES = r"^(?!.*ship).*(?:fee|commission|provision|gebühr|frais)"

_DATE = (
    r"^(?:\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])$"
    r"|\d{1,2}[-. ]\p{L}{3,9}[-. ,]+\d{2,4}|\p{L}{3,9} \d{1,2},? \d{4})"
)
_EPOCH = r"^1\d{9}(?:\d{3}){0,3}$"
"""Seconds since 1970, and their thousandths and so on, from 2001 to 2033."""
_TIME = r"^\d{1,2}:\d{2}(?::\d{2})?(?: ?[AaPp][Mm])?$"
_NUMBER = r"^[-+(]?\s*[^\w\s]{0,2}\s*[-+(]?\d[\d.,'\x{2019}\s]*[-)]?\s*[^\w\s]{0,2}$"
_DECIMALS = r"[.,]\d{1,2}\D*$"
_DIGIT = r"\d"
_NOUGHT = r"^[^1-9]*$"
_MOST = 0.8
_HALF = 0.5
_FEW_ROWS = 20
"""Below so many values, how often they are repeated says nothing."""


@dataclass(frozen=True)
class Proposal:
    """A column that may be a missing one.

    Attributes:
        header: its name, ``None`` where no column fits.
        example: one of its values, ``None`` where none is known.
    """

    header: str | None = None
    example: str | None = None

    def as_line(self, name: str) -> str:
        """The line of ``[source.columns]``, with an example."""
        line = f'{name} = "{self.header or "…"}"'
        return f"{line} (such as {self.example!r})" if self.example else line


@dataclass(frozen=True)
class _Facts:
    """What the values of a column are; shares are of those that are not empty."""

    n: int
    n_different: int
    share_dates: float
    share_epochs: float
    share_numbers: float
    share_decimals: float
    share_nought: float
    share_negative: float
    share_digits: float
    share_commonest: float
    example: str | None

    @property
    def may_be_customers(self) -> bool:
        """Neither dates nor amounts; some come again and not all are one."""
        is_amount = self.share_numbers >= _MOST and self.share_decimals > 1 - _MOST
        return self.share_dates < 1 - _MOST and not is_amount and (self.n < _FEW_ROWS or self.n_different > 1)

    @property
    def are_ids(self) -> bool:
        """Neither dates nor amounts, and not the few words that a kind or a channel is told by."""
        is_told_apart = self.share_digits >= _MOST or self.n_different > self.n / 50
        return self.may_be_customers and (self.n < _FEW_ROWS or (is_told_apart and self.share_commonest <= _HALF))

    @property
    def may_be_dates(self) -> bool:
        """Most are dates, or what a clock counts."""
        return self.share_dates >= _MOST or self.share_epochs >= _MOST

    @property
    def may_be_amounts(self) -> bool:
        """Most are numbers, and not nought or negative."""
        is_number = self.share_numbers >= _MOST and not self.may_be_dates
        return is_number and self.share_nought < _MOST and self.share_negative < 1 / 2

    @property
    def may_be_quantities(self) -> bool:
        """Amounts without decimals."""
        return self.may_be_amounts and self.share_decimals < 1 - _MOST


_FITS: dict[str, Callable[[_Facts], bool]] = {
    "customer_id": lambda facts: facts.may_be_customers,
    "invoiced_at": lambda facts: facts.may_be_dates,
    "line_amount": lambda facts: facts.may_be_amounts,
    "quantity": lambda facts: facts.may_be_quantities,
    "unit_price": lambda facts: facts.may_be_amounts,
}


def propose_columns(
    missing: Sequence[str], header: Sequence[str], others: Sequence[str], sample: pl.DataFrame | None
) -> dict[str, Proposal]:
    """Propose a column for each that is missing, by its values where there are any, else by its name alone.

    Args:
        missing: mapped columns.
        header: of the table.
        others: those of its columns that may be proposed.
        sample: rows of text, a column for each of the header; ``None`` where only the names are known.
    """
    by_bare_name = {bare(name): name for name in reversed(others) if name}
    if sample is None or sample.is_empty():
        return {column: Proposal(_nearest_name(column, by_bare_name)) for column in missing}
    facts = {name: _measure(sample.to_series(header.index(name))) for name in by_bare_name.values()}
    proposals: dict[str, Proposal] = {}
    if "line_amount" in missing and not {"quantity", "unit_price"} & {*missing}:
        # A price beside a quantity is no amount of a line; only both together are.
        prices = {name for name in facts if re.search(_PRICE_NAMES, bare(name))}
        has_quantity = any(re.search(_LIKELY_NAMES["quantity"], bare(name)) for name in facts)
        facts = {name: found for name, found in facts.items() if not (has_quantity and name in prices)}
    for column in missing:
        taken = {one.header for one in proposals.values()}
        name = _best(column, {name: found for name, found in facts.items() if found.n and name not in taken})
        proposals[column] = Proposal(name, facts[name].example) if name else Proposal()
    return proposals


def propose_ids(wanted: Sequence[str], sample: Mapping[str, pl.Series], *, is_certain: bool = False) -> dict[str, str]:
    """Columns that may be the ids of orders or of products, or what products are called, by their names.

    Args:
        wanted: of ``invoice_id``, ``product_id`` and ``description``; ids are no dates or amounts.
        sample: header → its first values.
        is_certain: only columns whose name can hardly mean anything else, and that most rows have a value of.
    """
    found: dict[str, str] = {}
    for column in wanted:
        clear = [name for name in sample if re.search(_CERTAIN_NAMES[column], re.sub(r"\W", "", bare(name)))]
        # A transaction may be a payment of an order that has a number of its own.
        clear.sort(key=lambda name: "trans" in bare(name))
        likely = [name for name in sample if re.search(_OPTIONAL_NAMES.get(column, "(?!)"), bare(name))]
        likely = [name for name in likely if not re.search(_NO_ID, bare(name))]
        facts = {name: _measure(sample[name]) for name in dict.fromkeys([*clear, *likely])}
        full = [name for name in clear if facts[name].n >= _MOST * len(sample[name])]
        certain = [name for name in full if facts[name].are_ids or column == "description"]
        fitting = [] if is_certain else [name for name, one in facts.items() if one.n and one.may_be_customers]
        if certain or fitting:
            found[column] = (certain or fitting)[0]
    return found


def may_be_times(values: pl.Series) -> bool:
    """Whether most values are times of day."""
    texts = values.str.strip_chars().drop_nulls()
    texts = texts.filter(texts != "")
    return bool(len(texts)) and int(texts.str.contains(_TIME).sum()) >= _MOST * len(texts)


@functools.lru_cache(maxsize=4096)
def bare(name: str) -> str:
    """A name without case, spaces and underscores.

    >>> bare("Customer_ID") == bare("customer id")
    True
    """
    return re.sub(r"[\s_]+", "", name).lower()


def _nearest_name(column: str, by_bare_name: dict[str, str]) -> str | None:
    usual = [name for name in _COMMON_NAMES[column] if name in by_bare_name]
    near = usual or difflib.get_close_matches(bare(column), list(by_bare_name), n=1)
    return by_bare_name[near[0]] if near else None


def _best(column: str, facts: dict[str, _Facts]) -> str | None:
    """The column whose values fit and whose name fits best; one whose name says nothing only if no other fits."""
    fitting = [name for name, found in facts.items() if _FITS[column](found)]
    if column == "line_amount" and any(re.search(_FEE_NAMES, bare(name)) for name in facts):
        # What a customer paid is before the fee of whoever took the payment.
        gross = [name for name in fitting if "gross" in bare(name)]
        fitting = [name for name in fitting if not gross or "net" not in bare(name)]
    usual = [name for common in _COMMON_NAMES[column] for name in fitting if bare(name) == common]
    likely = [name for name in fitting if re.search(_LIKELY_NAMES[column], bare(name))]
    likely = [name for name in likely if not re.search(_UNLIKELY_NAMES[column], bare(name))]
    if usual or likely:
        ranked = list(dict.fromkeys([*usual, *_by_values(column, likely, facts)]))
        return next((name for name in ranked if _varies(column, facts[name])), ranked[0])
    plain = [name for name in fitting if not any(_is_about(name, other) for other in _LIKELY_NAMES)]
    plain = [name for name in plain if _is_certain(column, facts[name])]
    return plain[0] if len(plain) == 1 else None


def _varies(column: str, facts: _Facts) -> bool:
    """Whether no single value is that of most rows: an address that all pay to is no customer's."""
    most = _HALF if column == "customer_id" else 1 - 1 / _FEW_ROWS
    return facts.n < _FEW_ROWS or facts.share_commonest <= most


def _by_values(column: str, names: list[str], facts: dict[str, _Facts]) -> list[str]:
    def key(name: str) -> float:
        found = facts[name]
        return found.share_decimals if column in ("line_amount", "unit_price") else found.n

    return sorted(names, key=key, reverse=True)


def _is_about(name: str, column: str) -> bool:
    return any(re.search(names[column], bare(name)) for names in (_LIKELY_NAMES, _UNLIKELY_NAMES))


def _is_certain(column: str, facts: _Facts) -> bool:
    """Whether values alone are a reason to propose a column."""
    if column == "customer_id":
        return facts.n >= _FEW_ROWS and facts.n / 50 < facts.n_different < facts.n
    return (column == "invoiced_at" and facts.share_dates >= _MOST) or (
        column == "line_amount" and facts.share_decimals > 1 / 2
    )


def _measure(values: pl.Series) -> _Facts:
    texts = values.cast(pl.String, strict=False).str.strip_chars()
    texts = texts.filter(texts.fill_null("") != "")
    n = len(texts)

    def share(pattern: str) -> float:
        return float(texts.str.contains(pattern).sum()) / n if n else 0.0

    return _Facts(
        n=n,
        n_different=texts.n_unique(),
        share_dates=share(_DATE),
        share_epochs=share(_EPOCH),
        share_numbers=share(_NUMBER),
        share_decimals=share(_DECIMALS),
        share_nought=share(_NOUGHT),
        share_negative=share(r"^\(|^[^\w\s]?\s*-|-$"),
        share_digits=share(_DIGIT),
        share_commonest=max(texts.value_counts()["count"], default=0) / max(n, 1),
        example=texts[0] if n else None,
    )
