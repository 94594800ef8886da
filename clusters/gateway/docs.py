"""/docs: Swagger UI over /openapi.json, all of it served from here.

The page may run the gateway's own scripts and talk to the gateway, and nothing else: there is no inline script, and
no address elsewhere, not even of a validator. Styles may be inline, because Swagger UI's are.
"""

from collections.abc import Mapping
from functools import cache

from starlette.responses import Response

__all__ = ["PAGES", "page"]

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>IAM gateway</title>
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
# queryConfigEnabled is off by default: nobody can be sent a link that loads another document here.
START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
"""
MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "png": "image/png"}
BUNDLED = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")

PAGES: Mapping[str, str] = {
    "/docs": "text/html",
    **{f"/docs/{name}": MEDIA_TYPES[name.rpartition(".")[2]] for name in (*BUNDLED, "start.js")},
}
"""Paths, and the media type of each."""


def page(path: str) -> Response:
    """What is at one of PAGES."""
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
    media_type = PAGES[path]
    match path:
        case "/docs":
            return Response(PAGE, headers=headers, media_type=media_type)
        case "/docs/start.js":
            return Response(START, headers=headers, media_type=media_type)
    return Response(bundled(path.removeprefix("/docs/")), headers=headers, media_type=media_type)


@cache
def bundled(name: str) -> bytes:
    # Imported late: few ever look at the page.
    from swagger_ui_bundle import swagger_ui_path

    content: bytes = (swagger_ui_path / name).read_bytes()
    return content
