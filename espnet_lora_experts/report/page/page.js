"use strict";
// Draws the figures in the colours of the style sheet, again when the theme changes.

const content = (id) => JSON.parse(document.getElementById(id).textContent);
const figures = content("figures");
const theme = content("theme");
const clips = content("clips");

// A copy in which each "var(--name)" is the value that the style sheet gives it now.
function resolved(value, style) {
  if (typeof value === "string") {
    const variable = value.match(/^var\((--[\w-]+)\)$/);
    return variable ? style.getPropertyValue(variable[1]).trim() : value;
  }
  if (Array.isArray(value)) return value.map((item) => resolved(item, style));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, resolved(item, style)]),
  );
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  const config = { displayModeBar: false, responsive: true, doubleClick: false };
  const template = resolved(theme, style);
  for (const [id, figure] of Object.entries(figures)) {
    const { data, layout } = resolved(figure, style);
    Plotly.react(id, data, { ...layout, template }, config);
  }
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

for (const player of document.querySelectorAll("audio[data-clip]")) {
  player.src = clips[player.dataset.clip];
}
