"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const live = document.getElementById("live");
  if (!live || !data.steps.length) return;
  const slider = document.getElementById("step");
  const chosen = document.getElementById("weight");
  // Numbers are kept as 16 bits of their logarithm: 0 is none, 1 is zero, 65535 not finite, the others 10^(code / 2000 − 20).
  const decode = (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Uint16Array(bytes.buffer);
  };
  const series = data.series.map(decode);
  const count = data.steps.length;
  const value = (row, step) => {
    const code = row < 0 ? 0 : series[row][step];
    return code === 0 ? null : code === 1 ? 0 : code === 65535 ? Infinity : 10 ** (code / 2000 - 20);
  };
  const written = (x) => {
    if (x === null) return "–";
    if (x === Infinity) return "not finite";
    if (x === 0) return "0";
    if (x >= 1e-3 && x < 1e5) return String(Number(x.toPrecision(3)));
    const [mantissa, exponent] = x.toExponential(1).replace("+", "").split("e");
    return `${mantissa}·10${exponent.replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]))}`;
  };
  const length = (x) => {
    if (!x || x === Infinity) return x ? data.bar : 0;
    const share = (Math.log10(x) - data.low) / (data.high - data.low);
    return data.bar * Math.min(1, Math.max(0.02, share));
  };
  const show = () => {
    const step = Number(slider.value);
    const said = `step ${data.steps[step]}, epoch ${data.epochs[step]}, error ${data.losses[step]}`;
    document.getElementById("said").textContent = said;
    slider.setAttribute("aria-valuetext", said);
    for (const e of document.querySelectorAll("[data-number]")) e.textContent = written(value(Number(e.dataset.number), step));
    for (const e of document.querySelectorAll("[data-bar]")) {
      const width = length(value(Number(e.dataset.bar), step));
      e.setAttribute("width", width.toFixed(1));
      if (e.dataset.right) e.setAttribute("x", (Number(e.dataset.right) - width).toFixed(1));
    }
    derive(step);
  };
  const derive = (step) => {
    const list = document.getElementById("derivation");
    if (!chosen || !list) return;
    const weight = data.weights[Number(chosen.value)];
    const lines = [];
    for (const [path, delta, gain] of weight.way.map((i) => data.links[i])) {
      lines.push(`‖∂E/∂y‖ of ${path} = ${written(value(delta, step))}` + (gain < 0 ? "" : `, gain ${written(value(gain, step))}`));
    }
    lines.push(`${weight.formula}, so ‖∂E/∂W‖ of ${weight.path} = ${written(value(weight.gradient, step))}`);
    if (weight.ratio >= 0) lines.push(`and the update changes it by ${written(value(weight.ratio, step))} of its norm`);
    list.replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
  };
  live.hidden = false;
  slider.max = count - 1;
  slider.value = count - 1;
  slider.addEventListener("input", show);
  if (chosen) chosen.addEventListener("change", show);
  show();
})();
