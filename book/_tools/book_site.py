"""A Sphinx extension for what the configuration cannot say.

It points links to the repository that builds the book, takes MathJax out of a
package, and removes what would reach for another server.
"""

import os
from importlib.metadata import files
from pathlib import Path
from shutil import copyfile

MATHJAX = "tex-svg-full.js"


def setup(app):
    """Connect the handlers; called by Sphinx."""
    # Before the theme's own handlers (500) read the repository, after they filled in.
    app.connect("config-inited", follow_the_repository, priority=100)
    app.connect("html-page-context", remove_thebe, priority=900)
    app.connect("build-finished", finish_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def follow_the_repository(app, config):
    """Point links and addresses to the repository whose workflow builds the book."""
    slug = os.environ.get("GITHUB_REPOSITORY")
    if slug:
        config.html_theme_options["repository_url"] = f"https://github.com/{slug}"
    else:
        slug = "/".join(config.html_theme_options["repository_url"].split("/")[-2:])
    owner, name = slug.split("/")
    config.html_baseurl = f"https://{owner}.github.io/{name}/"


def remove_thebe(app, pagename, templatename, context, doctree):
    """Drop the scripts of sphinx-thebe, which need a server and are not used."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{getattr(script, 'filename', script)}{vars(script)}"
    ]


def finish_site(app, exception):
    """Copy MathJax into the site and drop the source maps, a quarter of its size."""
    if exception or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    packaged = [f for f in files("sphinx-mathjax-offline") if f.name == MATHJAX]
    copyfile(packaged[0].locate(), static / MATHJAX)
    for source_map in Path(app.outdir).rglob("*.map"):
        source_map.unlink()
