// Writes zones.json: the countries that exist and the members of the built-in
// zones, taken from Unicode CLDR. Run it with `go generate ./residency` after
// raising `version`; it needs node, npm and tar. The tests of package residency
// state what must hold of the result.
//
// CLDR has no EEA and no DACH: they are the EU with IS, LI and NO, and DE, AT
// and CH. Territories with a code of their own (AX, GF, GP, MQ, RE, SJ, YT, …)
// are in no built-in zone even where European law reaches them: a policy that
// wants them names them.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const version = "48.2.0";

const dir = mkdtempSync(join(tmpdir(), "cldr-"));
try {
  const archive = execFileSync("npm", ["pack", "--silent", `cldr-core@${version}`], { cwd: dir, encoding: "utf8" }).trim();
  execFileSync("tar", ["xzf", archive], { cwd: dir });
  const supplemental = (file) => JSON.parse(readFileSync(join(dir, "package/supplemental", file), "utf8")).supplemental;
  const containment = supplemental("territoryContainment.json").territoryContainment;
  const codes = supplemental("codeMappings.json").codeMappings;

  // Countries are the leaves below the world (001). Keys such as
  // "172-status-deprecated" are not walked, so countries of the past stay out.
  // Numeric codes from 900 on are private use; XK (Kosovo) is the one that
  // registries and GeoIP databases use.
  const leaves = (code) => containment[code]?._contains.flatMap(leaves) ?? [code];
  const isCountry = (code) => /^[A-Z]{2}$/.test(code) && (Number(codes[code]?._numeric ?? 999) < 900 || code === "XK");
  const countries = [...new Set(leaves("001"))].filter(isCountry).sort();

  const eu = containment.EU._contains.toSorted();
  const zones = {
    EU: eu,
    EEA: [...eu, "IS", "LI", "NO"].sort(),
    DACH: ["AT", "CH", "DE"],
  };
  const result = { source: `Unicode CLDR, npm cldr-core ${version}`, license: "Unicode-3.0", countries, zones };
  const lines = JSON.stringify(result, null, 1).replace(/\[\n\s+([^\]]*?)\n\s+\]/g, (_, list) => `[${list.replace(/\s*\n\s*/g, " ")}]`);
  writeFileSync(new URL("zones.json", import.meta.url), lines + "\n");
} finally {
  rmSync(dir, { recursive: true });
}
