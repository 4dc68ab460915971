"""How the page looks. It is part of the page: nothing is loaded from elsewhere.

No character that HTML would have written as an entity may stand in it: browsers take what is in a
style element as it is.
"""

from __future__ import annotations

import base64
import hashlib

__all__ = ["CONTENT_SECURITY_POLICY", "STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f6f7f5; --card: #ffffff; --ink: #1b2226; --soft: #58636a; --line: #dde1de;
  --first: #2d6a94; --second: #b9591c; --good: #2a6b4a; --bad: #a32a1f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181a; --card: #1c2124; --ink: #e7eae8; --soft: #a4afb3; --line: #394247;
    --first: #74b4de; --second: #e59b60; --good: #80ca9f; --bad: #f19384;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 3rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: break-word;
}
a { color: var(--first); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible, [tabindex]:focus-visible {
  outline: 2px solid var(--first); outline-offset: 3px; border-radius: 3px;
}
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; font-weight: 650; letter-spacing: -.01em; }
h2 { margin: 0 0 .75rem; font-size: 1.05rem; font-weight: 650; }
h3 { margin: 0; font-size: 1rem; font-weight: 600; }
p { margin: 0; }
.soft, .note { color: var(--soft); font-size: .9rem; }
header { display: flex; flex-wrap: wrap; gap: .25rem 2rem; align-items: baseline;
  justify-content: space-between; margin-bottom: 1.25rem; }
.verdict { margin: 0 0 1.25rem; padding: .8rem 1.1rem; list-style: none; background: var(--card);
  border: 1px solid var(--line); border-left: 4px solid var(--good); border-radius: 6px; }
.verdict.trouble { border-left-color: var(--bad); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 1.1rem 1.25rem 1.2rem; margin: 0 0 1.25rem; min-width: 0; }
.now { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr));
  gap: 1.25rem 2rem; margin: 0; }
.now div { min-width: 0; }
.now dt { color: var(--soft); font-size: .9rem; }
.now dd { margin: 0; }
.now .figure { font-size: 1.75rem; line-height: 1.25; font-weight: 600; letter-spacing: -.01em;
  white-space: nowrap; }
.pair { display: grid; grid-template-columns: 1fr; gap: 1.5rem 2.5rem; }
figure { margin: 0; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: .1rem 1.25rem; align-items: baseline;
  justify-content: space-between; margin-bottom: .5rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 0; padding: 0; list-style: none;
  color: var(--soft); font-size: .9rem; }
.swatch { display: inline-block; width: .7em; height: .7em; margin-right: .4em; border-radius: 2px;
  background: currentColor; }
.first { color: var(--first); }
.second { color: var(--second); }
.plot { display: grid; grid-template-columns: auto 1fr; grid-template-rows: 9.5rem auto;
  column-gap: .6rem; }
.plot svg { display: block; width: 100%; height: 100%; min-width: 0; overflow: visible; }
.scale, .hours { display: flex; justify-content: space-between; color: var(--soft);
  font-size: .8rem; line-height: 1; }
.scale { flex-direction: column; text-align: right; margin: -.4em 0; }
.hours { grid-column: 2; padding-top: .5rem; }
.rule { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
path { fill: currentColor; }
path.area { fill-opacity: .16; }
path.line { fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linejoin: round;
  vector-effect: non-scaling-stroke; }
.tip { fill: transparent; }
.tip:hover { fill: currentColor; fill-opacity: .1; }
details { margin-top: 1rem; font-size: .9rem; }
summary { cursor: pointer; color: var(--soft); }
details table { margin-top: .6rem; }
table { width: 100%; border-collapse: collapse; font-size: .95rem; }
th, td { padding: .45rem 1.25rem .45rem 0; text-align: left; vertical-align: top;
  border-top: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-top: 0; padding-top: 0; color: var(--soft); font-size: .85rem; font-weight: 500; }
tbody th { font-weight: 500; }
.number { text-align: right; white-space: nowrap; }
.number:not(:last-child) { padding-right: 2.5rem; }
.short { white-space: nowrap; }
.name { overflow-wrap: anywhere; }
.up { color: var(--good); }
.down { color: var(--bad); font-weight: 600; }
footer { color: var(--soft); font-size: .9rem; }
@media (min-width: 60rem) {
  .pair { grid-template-columns: 1fr 1fr; }
}
@media (max-width: 34rem) {
  body { padding: 1.25rem .9rem 2rem; }
  .card { padding: 1rem .95rem; }
  .now { grid-template-columns: 1fr 1fr; gap: 1.1rem 1rem; }
  .now .figure { font-size: 1.45rem; }
  .plot { grid-template-rows: 7.5rem auto; }
  .rows thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .rows, .rows tbody { display: block; }
  .rows tr { display: flex; flex-wrap: wrap; gap: .1rem .9rem; padding: .55rem 0;
    border-top: 1px solid var(--line); }
  .rows tbody tr:first-child { border-top: 0; padding-top: 0; }
  .rows th, .rows td, .rows td.number:not(:last-child) { display: block; padding: 0; border: 0;
    text-align: left; }
  .rows .full { flex-basis: 100%; }
  .rows td[data-label]::before { content: attr(data-label) " "; color: var(--soft); }
}
"""

_HASH = base64.b64encode(hashlib.sha256(STYLE.encode("utf-8")).digest()).decode("ascii")

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
"""This style, the icon within the page, and nothing else from anywhere."""
