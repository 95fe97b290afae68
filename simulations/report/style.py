"""How the page looks: by day, by night and on paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6570; --line: #d5dade; --page: #ffffff; --tint: #f4f6f7;
  --good: #17663a; --good-tint: #e6f2ea; --bad: #a3201d; --bad-tint: #fbe9e7; --open: #7d5200; --open-tint: #fbf1dc;
  --plot-blue: #0a5fa5; --plot-sky: #62b3e4; --plot-green: #0b8f6d; --plot-orange: #e08a00; --plot-purple: #b85c95;
  --plot-red: #c2451e; --plot-grey: #87919b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #a3adb7; --line: #39424b; --page: #14181c;
  --tint: #1d2329; --good: #7fd1a0; --good-tint: #16301f; --bad: #ff9d94; --bad-tint: #3b1a19; --open: #f0c36b;
  --open-tint: #33280f; --plot-blue: #4d9be8; --plot-sky: #9fd6f7; --plot-green: #34b88f; --plot-orange: #f0aa3c;
  --plot-purple: #df93c4; --plot-red: #f0815d; --plot-grey: #8b96a1; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.5rem; line-height: 1.25; }
h2 { margin: 2.75rem 0 .75rem; font-size: 1.15rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: .98rem; }
p, ul, ol { margin: .5rem 0; }
li { margin: .25rem 0; }
a { color: inherit; }
:focus-visible { outline: 2px solid var(--plot-blue); outline-offset: 2px; }
.lead, .note { color: var(--soft); }
.lead { margin: 0; }
.note { font-size: .9rem; }
.verdict { margin: 1.5rem 0; padding: 1rem 1.25rem; border-left: .4rem solid; border-radius: .25rem; }
.verdict strong { display: block; font-size: 1.35rem; }
.verdict span { display: block; color: var(--ink); overflow-wrap: anywhere; }
.kept { border-color: var(--good); background: var(--good-tint); color: var(--good); }
.stopped { border-color: var(--open); background: var(--open-tint); color: var(--open); }
.broken { border-color: var(--bad); background: var(--bad-tint); color: var(--bad); }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .9rem 1.25rem;
  margin: 0; }
.numbers dt { color: var(--soft); font-size: .87rem; }
.numbers dd { margin: 0; font-size: 1.08rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.25rem; margin: 1.25rem 0 0; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1.25rem 0 0; }
figcaption { margin: 0 0 .35rem; font-weight: 600; font-size: .98rem; }
.plot svg { display: block; width: 100%; min-width: 38rem; height: auto; }
.plot svg * { stroke-linejoin: round; stroke-linecap: butt; }
.scroll { overflow-x: auto; }
table { width: 100%; margin-top: .75rem; border-collapse: collapse; font-size: .92rem; }
caption { padding-bottom: .35rem; text-align: left; color: var(--soft); font-size: .9rem; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; vertical-align: bottom; }
tbody th { font-weight: 600; }
tfoot th, tfoot td { border-bottom: none; font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.status { display: inline-block; padding: 0 .5rem; border-radius: .8rem; font-size: .85rem; font-weight: 600;
  white-space: nowrap; }
.status.good { background: var(--good-tint); color: var(--good); }
.status.open { background: var(--open-tint); color: var(--open); }
.status.bad { background: var(--bad-tint); color: var(--bad); }
.attack { margin: 1.25rem 0 0; padding: 0 0 .25rem 1rem; border-left: .2rem solid var(--line); }
.attack h3 { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; margin: 0 0 .35rem; }
.attack dl { display: grid; grid-template-columns: 8.5rem 1fr; gap: .25rem 1rem; margin: 0; font-size: .94rem; }
.attack dt { color: var(--soft); }
.attack dd { margin: 0; overflow-wrap: anywhere; }
.attack dd ol, .attack dd ul { margin: 0; padding-left: 1.2rem; }
.attack dd li { margin: 0 0 .25rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft);
  font-size: .85rem; }
@media (max-width: 40rem) { .facts, .attack dl { grid-template-columns: 1fr; } .facts dd, .attack dd {
  margin-bottom: .5rem; } }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --tint: #f2f2f2; --good: #11512d;
    --good-tint: #e8f3ec; --bad: #8c1512; --bad-tint: #fbe9e7; --open: #664300; --open-tint: #fbf1dc;
    --plot-blue: #0a5fa5; --plot-sky: #62b3e4; --plot-green: #0b8f6d; --plot-orange: #e08a00; --plot-purple: #b85c95;
    --plot-red: #c2451e; --plot-grey: #87919b; }
  body { max-width: none; padding: 0; font-size: 10pt; line-height: 1.4; }
  h2 { margin: 1.5rem 0 .5rem; } th, td { padding: .2rem .4rem; }
  .verdict, .status, .plot { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .scroll { overflow: visible; } .plot svg { min-width: 0; }
  h2, h3, figcaption { break-after: avoid; } tr, li, figure, .verdict { break-inside: avoid; }
  thead { display: table-header-group; }
  @page { margin: 18mm 16mm; }
}
"""
