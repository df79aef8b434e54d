"""The table of pages. A new page is one row: path, title in the menu, roles, what gathers, what shows."""

from monitoring.erasing import filed, wishes
from monitoring.inquiry import acquaintance, merchandise
from monitoring.merchandising import drafts, thumbnails, versions
from monitoring.pages import ledger, library, overlooked, overview, shifts, trials
from monitoring.pages.desk import EVERYBODY, MERCHANDISING, PERSONAL, Page

PAGES = (
    Page("/", "Overview", EVERYBODY, overview.gather, "overview.html"),
    Page("/rollout", "Rollout", EVERYBODY, trials.gather, "trials.html"),
    Page("/rules", "Rules", EVERYBODY, versions.gather, "rules.html"),
    Page("/rules/version/{number:int}", "", EVERYBODY, versions.version, "version.html"),
    Page("/rules/lab", "", EVERYBODY, drafts.judge, "lab.html"),
    Page("/rules/lab", "", MERCHANDISING, drafts.judge, "lab.html", "POST"),
    Page("/rules/draft", "", MERCHANDISING, drafts.edit, "draft.html"),
    Page("/rules/draft", "", MERCHANDISING, drafts.again, "draft.html", "POST"),
    Page("/rules/check", "", MERCHANDISING, drafts.check, "", "POST"),
    Page("/rules/preview", "", MERCHANDISING, drafts.preview, "preview.html", "POST"),
    Page("/rules/shadow", "", MERCHANDISING, drafts.shadow, "draft.html", "POST"),
    Page("/rules/shadow/end", "", MERCHANDISING, versions.end_shadow, "", "POST"),
    Page("/rules/publish", "", MERCHANDISING, drafts.publish, "draft.html", "POST"),
    Page("/rules/revert", "", MERCHANDISING, versions.revert, "", "POST"),
    Page("/products", "Products", EVERYBODY, merchandise.gather, "products.html"),
    Page("/products/one", "", EVERYBODY, merchandise.product, "product.html"),
    Page("/shopper", "Shopper", PERSONAL, acquaintance.gather, "shopper.html"),
    Page("/privacy", "Privacy", PERSONAL, filed.gather, "privacy.html"),
    Page("/privacy/look", "", PERSONAL, wishes.look, "", "POST"),
    Page("/privacy/erase", "", PERSONAL, wishes.erase, "", "POST"),
    Page("/privacy/verify", "", PERSONAL, wishes.verify, "", "POST"),
    Page("/privacy/receipt/{name}", "", PERSONAL, filed.download),
    Page("/privacy/{key}", "", PERSONAL, wishes.errand, "errand.html"),
    Page("/picture/{item_id:path}", "", EVERYBODY, thumbnails.picture),
    Page("/unseen", "Unseen", EVERYBODY, overlooked.gather, "overlooked.html"),
    Page("/drift", "Drift", EVERYBODY, shifts.gather, "shifts.html"),
    Page("/reports", "Reports", EVERYBODY, library.gather, "library.html"),
    Page("/reports/{path:path}", "", EVERYBODY, library.report),
    Page("/audit", "Audit", EVERYBODY, ledger.gather, "ledger.html"),
)
