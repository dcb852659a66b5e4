"""Words of statuses, in the languages of shops' exports: which say that a line is a sale, and which that it is none.

What becomes of lines with such words is decided in ``overlooked``.
"""

from __future__ import annotations

import re

import polars as pl

YES = ("true", "yes", "y", "1", "t", "x", "ja", "oui", "wahr", "si", "sí")
NO = ("false", "no", "n", "0", "f", "nein", "non", "falsch")


def _words(text: str) -> list[str]:
    return [" ".join(word.split()) for word in text.split(",")]


_NO_SALE = _words(
    """
    void, error, draft, test, sandbox, quote, cancelation, reversal, fraud, return, retour, view, product view,
    page view, viewed, cart,
    add to cart, remove from cart, addtocart, click, impression, wishlist, checkout started, teruggave,
    requires payment method, denied, lost, no show, reso, avoir, payout, withdrawal, auszahlung, fee, fees,
    adjustment
    """
)
"""Values, normalised, of lines that are no sale; whole values only, because they begin other words, too."""
_PAID_BACK = (
    "refund|chargeback|charged back|credit (?:note|memo)|erstatt|rückerstatt|retoure|gutschrift|rembours|note de crédit"
    "|rimbors|nota (?:de|di) cr[eé]dit|reembols|devol|devuelt|terugbetaal|återbetal|refunder|tilbakebetal|zwrot|zwróc"
    "|hyvity|iade|возврат|返金|退款|환불|kreditnota"
)
_OTHER_STEMS = (
    "void|fail|declin|rejected|refused|cancel|reversed|expired|abandoned|unpaid|not paid|deleted|trash|spam|returned"
    "|not captured|uncaptured|awaiting payment|storn|abgebroch|abgelehnt|widerruf|annul|refusée?$|échou|rifiut|anulad"
    "|anulow|rechazad|fallid|geannul|geweigerd|mislukt|avbrut|makuler|kansell|peruut|i̇ptal|iptal"
    "|отмен|отклон|キャンセル|取消|취소"
)
_NO_SALE_PATTERN = rf"^(?:{'|'.join(map(re.escape, _NO_SALE))})$|(?:^|[\s(/:,])(?:{_PAID_BACK}|{_OTHER_STEMS})"
_NOT = (
    r"^(?:no|non|never|nicht|kein|keine|pas|sin|ohne|without)\s|^not (?:refund|cancel|return|void|expired)|refundable"
)
_IN_PART = r"partial|in part|\bpart\b|teilw|teil|partiel|parcial|parzial|gedeeltelijk|delvis|częściow|k.smi|частичн"
_SALE_PATTERN = (
    r"^(?:wc )?(?:"
    "paid|complete|success|succe|shipped|shipping|deliver|fulfil|partially fulfil|partially shipped|unfulfilled|closed"
    "|done|ok$|okay|approved|accepted|captured|settled|confirmed|process|invoiced"
    "|billed|sold|sale|purchase|order|charge"
    "|active|on hold|authori[sz]ed|received|picked|packed|dispatched|sent$|finali[sz]ed|finished|posted|open|attended"
    "|in transit|out for|ready|awaiting (?:ship|fulfil|pick)|payment (?:received"
    "|complete|accepted)|valid|won$|unterwegs"
    "|bezahlt|abgeschlossen|versendet|versandt|geliefert|erledigt|erfolgreich|in bearbeitung"
    "|offen|fakturiert|zugestellt|rechnung|verkauf"
    "|payée?|livrée?|expédiée?|terminée?|validée?|réussi|facture|vente|pagad|complet|entregad|enviad|cobrad"
    "|finalizad|factura|venta|pagat|consegnat|spedit|evas"
    "|fattura|vendita|betaald|verzonden|geleverd|voltooid|afgerond|betald|skickad"
    "|levererad|slutför|betalt|sendt|leveret"
    "|fullført|opłacon|wysłan|zrealizowan|dostarczon|ödendi|tamamlan|teslim|kargo|оплачен|доставлен|выполнен|заверш"
    "|отправлен|完了|支払|発送|已完成|已付款|완료|maksettu|toimitettu|zaplacen|doručen|pago$|concluíd|quitad"
    ")"
)

STATUS_NAME = re.compile(
    r"status|statut|estado|\bstato|zustand|durum|статус|состояние|ステータス|状態|状态|상태|situaç|\bstav\b|\btila\b"
    r"|\bstate\b|\bd/c\b|\bdr/cr\b|debit/credit|soll/haben",
    re.IGNORECASE,
)
"""Names of columns that say what became of a line; those of ``UNCERTAIN_NAME`` may be about a place."""
UNCERTAIN_NAME = re.compile(r"\bstate\b|^estado$|^stato$|\bstav\b|\btila\b", re.IGNORECASE)
NO_STATUS_NAME = re.compile(
    r"product|item|artic|artik|descr|beschr|categ|kateg|title|titel|\bname|sku|brand|marke|country|land|city"
    r"|region|segment|address|tags?$|polic|reason|marital|member|loyal|employ|custom|kunde|client|\btax\b|subscri|stock"
    r"|ship|deliver|fulfil|liefer|versand|livraison|envío",
    re.IGNORECASE,
)
"""Names of columns whose words are about a product or a customer."""
SALE_FLAG_NAME = re.compile(
    r"\b(?:paid|captured|success|successful|valid|approved|completed?|settled|confirmed|bezahlt|payée?|pagad[oa])$",
    re.IGNORECASE,
)
"""Names of flags that say that a line is a sale."""


def says_no_sale(text: pl.Expr) -> pl.Expr:
    """Whether a normalised value says that a line is no sale."""
    return text.str.contains(_NO_SALE_PATTERN) & ~text.str.contains(_NOT) & (text.str.len_chars() <= 60)


def is_no_sale_word(text: pl.Expr) -> pl.Expr:
    """Whether the value is nothing but one word that says so."""
    return says_no_sale(text) & ~text.str.contains(" ", literal=True)


def says_paid_back(text: pl.Expr) -> pl.Expr:
    """Whether a normalised value says that money was given back."""
    return text.str.contains(rf"(?:^|[\s(/:,])(?:{_PAID_BACK})|^return|^retour|^reso$|^avoir$") & ~text.str.contains(
        _NOT
    )


def is_in_part(text: pl.Expr) -> pl.Expr:
    """Whether a normalised value is about a part of a line only."""
    return text.str.contains(_IN_PART)


def says_sale(text: pl.Expr) -> pl.Expr:
    """Whether a normalised value says that a line is a sale."""
    return text.str.contains(_SALE_PATTERN) & ~says_no_sale(text)


def words_of(header: str) -> str:
    """A header as words: ``isPaid`` and ``is_paid`` are ``is paid``."""
    return re.sub(r"[\s_-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", header)).strip()
