"use strict";

/* What every page's script starts from: elements, numbers as text, round ticks. */

const $ = (id) => document.getElementById(id);

function make(tag, parent, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  parent?.append(element);
  return element;
}

const count = (number, unit) => `${number.toLocaleString("en")} ${unit}${number === 1 ? "" : "s"}`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function decimalsFor(step) {
  return step > 0 && Number.isFinite(step) ? clamp(-Math.floor(Math.log10(step) + 1e-9), 0, 9) : 0;
}

/* Round numbers between low and high, about `wanted` of them and at least `least` apart. */
function ticks(low, high, wanted, least = 0) {
  const rough = Math.max((high - low) / Math.max(wanted, 1), least);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const values = [];
  const first = Math.ceil(low / step - 1e-9) + 0; // not minus zero
  for (let i = first; i * step <= high + step * 1e-9; i++) values.push(i * step);
  return { values, decimals: decimalsFor(step) };
}
