"""The table of pages. A new page is one row: path, title in the menu, roles, what gathers, what shows."""

from monitoring.inquiry import acquaintance, merchandise
from monitoring.pages import ledger, library, overview, trials
from monitoring.pages.desk import EVERYBODY, Page

PAGES = (
    Page("/", "Overview", EVERYBODY, overview.gather, "overview.html"),
    Page("/rollout", "Rollout", EVERYBODY, trials.gather, "trials.html"),
    Page("/products", "Products", EVERYBODY, merchandise.gather, "products.html"),
    Page("/products/one", "", EVERYBODY, merchandise.product, "product.html"),
    Page("/shopper", "Shopper", EVERYBODY, acquaintance.gather, "shopper.html"),
    Page("/reports", "Reports", EVERYBODY, library.gather, "library.html"),
    Page("/reports/{path:path}", "", EVERYBODY, library.report),
    Page("/audit", "Audit", EVERYBODY, ledger.gather, "ledger.html"),
)
