// Writes outlines.json: where on Earth the countries lie, coarsely. Run it with
// `go generate ./residency/whereabouts` after raising a version; it needs node,
// npm and tar. The tests of package whereabouts state what must hold of the result.
//
// The borders are those of Natural Earth (public domain, through world-atlas,
// ISC). It counts some overseas parts to their countries; country-coder (ISC)
// says which code of ISO 3166-1 each island has, and has the few that Natural
// Earth leaves out. Where the two do not agree about a border, the country gets
// what either says.
//
// What is done to the outlines may only make a country larger, or move its
// border by less than the package's doubtKm, because a distance between two
// countries has to be a lower bound: holes are filled, a small island is left
// out only near a larger one, Antarctica is left out as a whole.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const coder = "5.1.0";
const atlas = "2.0.2";

const tolerance = 10; // km by which simplifying may move a border
const small = 40; // km: an island of that size needs no outline
const near = 25; // km from another part of the country
const dissent = 60; // km between the two sources at a border
const unit = 100; // coordinates are kept in hundredths of a degree, 1.1 km
const stride = 4; // degrees: a longer edge on a map is not the shortest way on Earth

// Nobody can run a node there, and they would bring their countries nearer to others.
const uninhabited = new Set(["CP"]); // Clipperton, of France, in the Pacific

const rad = Math.PI / 180;
const kmPerDegree = 111.2;

// fromLine is how many km p is from the line a-b, on a map that is true at p.
function fromLine(p, a, b) {
  const k = Math.cos(p[1] * rad);
  const [ax, ay, bx, by] = [(a[0] - p[0]) * k, a[1] - p[1], (b[0] - p[0]) * k, b[1] - p[1]];
  const [dx, dy] = [bx - ax, by - ay];
  const len = dx * dx + dy * dy;
  const t = len === 0 ? 0 : Math.min(1, Math.max(0, -(ax * dx + ay * dy) / len));
  return Math.hypot(ax + t * dx, ay + t * dy) * kmPerDegree;
}

// simplify leaves out the points that are within tolerance (Douglas and Peucker).
function simplify(line) {
  let [worst, at] = [0, 0];
  for (let i = 1; i < line.length - 1; i++) {
    const d = fromLine(line[i], line[0], line.at(-1));
    if (d > worst) [worst, at] = [d, i];
  }
  if (worst <= tolerance) return [line[0], line.at(-1)];
  return [...simplify(line.slice(0, at + 1)).slice(0, -1), ...simplify(line.slice(at))];
}

// densify puts points on edges that would leave their parallel otherwise.
function densify(line) {
  return line.flatMap((p, i) => {
    const q = line[(i + 1) % line.length];
    const n = Math.max(1, Math.ceil(Math.abs(q[0] - p[0]) / stride));
    return Array.from({ length: n }, (_, j) => [p[0] + ((q[0] - p[0]) * j) / n, p[1] + ((q[1] - p[1]) * j) / n]);
  });
}

// outline makes a ring of a map (first point repeated) one of the file. What is
// too small to keep its form becomes a square around it.
function outline(ring) {
  if (size(ring) < 2 * tolerance) return square(ring);
  const half = Math.floor(ring.length / 2);
  const line = [...simplify(ring.slice(0, half + 1)).slice(0, -1), ...simplify(ring.slice(half)).slice(0, -1)];
  return line.length < 3 ? square(ring) : whole(densify(line));
}

function square(ring) {
  const [x, y] = [ring.map((p) => p[0]), ring.map((p) => p[1])];
  const [w, e, s, n] = [Math.min(...x) - 0.02, Math.max(...x) + 0.02, Math.min(...y) - 0.02, Math.max(...y) + 0.02];
  return whole([[w, s], [e, s], [e, n], [w, n]]);
}

const whole = (line) => line.flatMap((p) => [Math.round(p[0] * unit), Math.round(p[1] * unit)]);

function inside([x, y], ring) {
  let odd = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [[ax, ay], [bx, by]] = [ring[i], ring[j]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

// away is how many km p is from the nearest of some rings, 0 inside of one.
const away = (p, rings) =>
  rings.some((r) => inside(p, r)) ? 0 : Math.min(...rings.map((r) => r.reduce((d, a, i) => Math.min(d, fromLine(p, a, r[(i + 1) % r.length])), Infinity)));

const size = (ring) => {
  const [x, y] = [ring.map((p) => p[0] * Math.cos(p[1] * rad)), ring.map((p) => p[1])];
  return Math.max(Math.max(...x) - Math.min(...x), Math.max(...y) - Math.min(...y)) * kmPerDegree;
};

const some = (ring) => ring.filter((_, i) => i % Math.ceil(ring.length / 60) === 0).map(([x, y]) => [((x + 540) % 360) - 180, y]);

const dir = mkdtempSync(join(tmpdir(), "outlines-"));
try {
  const fetch = (name, file) => {
    const archive = execFileSync("npm", ["pack", "--silent", name], { cwd: dir, encoding: "utf8" }).trim();
    execFileSync("tar", ["xzf", archive], { cwd: dir });
    return JSON.parse(readFileSync(join(dir, "package", file), "utf8"));
  };
  const known = new Set(JSON.parse(readFileSync(new URL("../../zonedata/zones.json", import.meta.url), "utf8")).countries);

  // A part of a country without a code of its own (Hawaii, the Canaries) is its
  // group's or, failing that, its country's.
  const codeOf = ({ iso1A2, groups = [], country }) => [iso1A2, ...groups, country].find((c) => known.has(c));
  const areas = []; // of country-coder: code, sovereign, rings
  const numeric = {};
  for (const { properties: p, geometry } of fetch(`@ideditor/country-coder@${coder}`, "src/data/borders.json").features) {
    if (p.iso1N3 && known.has(p.iso1A2)) numeric[p.iso1N3] = p.iso1A2;
    const code = codeOf(p);
    if (!code || code === "AQ" || !geometry) continue;
    areas.push({ code, sovereign: p.country ?? code, skip: uninhabited.has(p.iso1A2), rings: geometry.coordinates.map(([outer]) => outer) });
  }

  const world = fetch(`world-atlas@${atlas}`, "countries-10m.json");
  const { scale, translate } = world.transform;
  const arcs = world.arcs.map((arc) => {
    let [x, y] = [0, 0];
    return arc.map(([dx, dy]) => [(x += dx) * scale[0] + translate[0], (y += dy) * scale[1] + translate[1]]);
  });
  // Rings that cross the antimeridian go on beyond 180 degrees.
  const unwrap = (ring) => {
    let turn = 0;
    return ring.map(([x, y], i) => {
      if (i > 0 && Math.abs(x - ring[i - 1][0]) > 180) turn += x < 0 ? 360 : -360;
      return [x + turn, y];
    });
  };
  const ringOf = (ids) => unwrap(ids.flatMap((a) => (a < 0 ? arcs[~a].toReversed() : arcs[a]).slice(1)));
  const full = {}; // code → rings
  for (const g of world.objects.countries.geometries) {
    const own = numeric[g.id] ?? (g.properties.name === "Kosovo" ? "XK" : undefined);
    if (!own || own === "AQ") continue;
    const ours = areas.filter((a) => a.sovereign === own || a.code === own);
    for (const [outer] of g.type === "Polygon" ? [g.arcs] : g.arcs) {
      const ring = ringOf(outer);
      const sample = some(ring);
      const votes = ours.map((a) => sample.filter((p) => a.rings.some((r) => inside(p, r))).length);
      const best = ours[votes.indexOf(Math.max(...votes))];
      if (best?.skip && Math.max(...votes) > 0) continue;
      const code = Math.max(0, ...votes) > 0 ? best.code : own;
      (full[code] ??= []).push(ring);
      const theirs = areas.filter((a) => a.code === code).flatMap((a) => a.rings);
      const km = Math.max(...sample.map((p) => away(p, theirs)));
      if (km > dissent) {
        console.error(`${code}: the sources differ by ${km.toFixed()} km; both outlines are kept`);
        full[code].push(...theirs);
      }
    }
  }
  for (const a of areas) {
    if (full[a.code] || a.skip) continue;
    console.error(`${a.code}: only country-coder has it`);
    full[a.code] = areas.filter((b) => b.code === a.code).flatMap((b) => b.rings);
  }

  const countries = {};
  for (const code of Object.keys(full).sort()) {
    const large = full[code].toSorted((r, q) => size(q) - size(r));
    const kept = [];
    for (const r of large) {
      if (kept.length && size(r) < small && away(r[0], kept) < near) continue;
      kept.push(r);
    }
    countries[code] = kept.map((r) => outline([...r, r[0]]));
  }
  const missing = [...known].filter((c) => c !== "AQ" && !countries[c]);
  if (missing.length) throw new Error(`no outline of ${missing}`);
  const head = {
    source: `Natural Earth, npm world-atlas ${atlas}; codes by npm @ideditor/country-coder ${coder}`,
    license: "public domain; ISC",
    unit: `1/${unit} degree, longitude and latitude in turn`,
  };
  const body = Object.keys(countries).map((c) => `  ${JSON.stringify(c)}: ${JSON.stringify(countries[c])}`);
  writeFileSync(new URL("outlines.json", import.meta.url), `${JSON.stringify(head, null, 1).slice(0, -2)},\n "countries": {\n${body.join(",\n")}\n }\n}\n`);
} finally {
  rmSync(dir, { recursive: true });
}
