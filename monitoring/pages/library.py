"""Reports: what the stages and the watches wrote, as files."""

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from monitoring.pages.desk import Asked, Desk
from monitoring.pages.figures import reports


def gather(desk: Desk, _: Asked) -> Mapping[str, Any]:
    """Newest first; of the data docs their first pages, which link to the others."""
    found = reports(desk.data)
    return {
        "reports": [one for one in found if "/data_docs/" not in one.path or one.path.endswith("/index.html")]
    }


def report(desk: Desk, asked: Asked) -> Response:
    """One of the listed files, and no other. Scripts in it cannot act as the console."""
    path = asked.path["path"]
    if path not in {report.path for report in reports(desk.data)}:
        raise HTTPException(404, "no such report; /reports lists them")
    return FileResponse(desk.data / path, headers={"Content-Security-Policy": "sandbox allow-scripts"})
