/** No template, whatever it is, ends in another way than a text or one ShoalError, and none goes on for long. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isShoalError, messageOf } from "../errors.ts";
import { Budget, templateLimits } from "./budget.ts";
import { executeTemplate } from "./execute.ts";
import { parseTemplate } from "./parser.ts";
import { GoList, GoMap, GoStruct, type Value } from "./value.ts";

const data: Value = new GoStruct(
  "demo.Data",
  {
    Name: "web",
    Count: 3n,
    Labels: GoMap.ofStrings({ tier: "front", "a.b": "c", é: "ü" }),
    Items: new GoList("string", ["one", "two"]),
    Inner: new GoStruct("demo.Inner", { Ratio: 0.5 }),
  },
  { isPointer: true },
);

function expand(text: string): string {
  const budget = new Budget();
  return executeTemplate(parseTemplate("demo", text, new Map(), budget), data, new Map(), budget);
}

/** @returns the text, or the message of the one error that there may be */
function outcome(text: string): string {
  try {
    return expand(text);
  } catch (error) {
    assert.ok(isShoalError(error, "InvalidArgument"), `${text}\n${error instanceof Error ? error.stack : error}`);
    return messageOf(error);
  }
}

const pieces = (
  '{{ }} {{- -}} . $ $x $y := = , | ( ) "a" "%v" "%[2]*d" `r` \'c\' 0 1 -3 2.5 1e3 0x1F 1i nil true .Name .Count .Labels ' +
  ".Labels.tier .Items .Inner .Inner.Ratio .Foo if else end range with define template block break continue print printf " +
  "println len index slice eq ne lt le gt ge and or not html js urlquery call /* */ é \\"
).split(" ");

const template = fc
  .array(fc.constantFrom(...pieces, " ", "\n", "text"), { maxLength: 40 })
  .map((parts) => parts.join(" "));
const action = fc
  .array(fc.constantFrom(...pieces.filter((piece) => !/[{}]/.test(piece))), { minLength: 1, maxLength: 6 })
  .map((parts) => `{{${parts.join(" ")}}}`);

test("any text is expanded or refused with one kind of error", () => {
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 200 }), (text) => void outcome(`{{${text}}}`)));
  fc.assert(
    fc.property(template, (text) => void outcome(text)),
    { numRuns: 150 },
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 6 }), (actions) => void outcome(actions.join(""))),
    {
      numRuns: 300,
    },
  );
});

test("text without actions is what it was", () => {
  const plain = fc.string({ unit: "binary" }).filter((text) => !text.includes("{{"));
  fc.assert(fc.property(plain, (text) => assert.equal(expand(text), text)));
});

test("a string literal gives its string, and %q gives a literal of it", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const literal = expand(`{{printf "%q" ${JSON.stringify(text).replaceAll("\\/", "/")}}}`);
      assert.equal(expand(`{{${literal}}}`), text.toWellFormed());
    }),
  );
});

test("what goes on for ever is stopped", () => {
  const steps = /the template takes too many steps$/;
  const long = /the template makes a text that is too long$/;
  const deep = new RegExp(`exceeded maximum template depth \\(${templateLimits.depth}\\)$`);
  const endless: readonly (readonly [string, RegExp])[] = [
    ["{{range 1000000000}}{{end}}", steps],
    ["{{range 1000000}}{{range 1000000}}x{{end}}{{end}}", steps],
    ['{{define "x"}}{{template "x"}}{{end}}{{template "x"}}', deep],
    ['{{define "x"}}{{template "y"}}{{end}}{{define "y"}}{{if 1}}{{template "x"}}{{end}}{{end}}{{template "x"}}', deep],
    ['{{define "x"}}{{template "x"}}{{template "x"}}{{end}}{{template "x"}}', deep],
    [`{{$x := "abcd"}}${"{{$x = print $x $x}}".repeat(40)}`, long],
    ['{{$x := "abcd"}}{{range 40}}{{$x = print $x $x}}{{end}}', long],
    ['{{printf "%9999999d" 1}}', long],
    [`{{printf "${"%999999[1]d".repeat(100)}" 1}}`, long],
    ['{{printf "%999999v" .Labels}}', long],
    ['{{range 1000}}{{printf "%100000d" 1}}{{end}}', /too long$|too many steps$/],
    ['{{$x := printf "%1000000s" "y"}}{{range 1000000}}{{len $x}}{{end}}', steps],
    ['{{$x := printf "%1000000s" "y"}}{{range 1000000}}{{if eq $x "z"}}{{end}}{{end}}', steps],
    [`{{${"(".repeat(100_000)}`, /max expression depth exceeded$/],
    [`${"{{if 1}}".repeat(10_000)}`, /max expression depth exceeded$/],
    [`{{if 1}}${"{{else if 1}}".repeat(10_000)}{{end}}`, /max expression depth exceeded$/],
    ["{{1}}".repeat(500_000), steps],
    [`{{${"$a := 1 | print | ".repeat(100_000)}}}`, /unexpected|steps/],
    [`{{$a:=1}}`.repeat(300_000), steps],
    [`{{print ${"1 ".repeat(300_000)}}}`, steps],
  ];
  for (const [text, message] of endless) assert.match(outcome(text), message, text.slice(0, 80));
});

test("long texts cost what they are long, and messages stay short", () => {
  const long = 1_000_000;
  const texts = [
    `${" ".repeat(long)}x{{- 1}}`,
    `{{${" ".repeat(long)}1}}`,
    `{{${"9".repeat(long)}}}`,
    `{{0x${"f".repeat(long)}p1}}`,
    `{{${"0".repeat(long)}}}`,
    `{{1.${"0".repeat(long)}x}}`,
    `{{"${"\\\\".repeat(long / 2)}"}}`,
    `{{index "${"x".repeat(long)}" "a"}}`,
    `{{range "${"x".repeat(long)}"}}{{end}}`,
    `{{$${"x".repeat(long)}}}`,
    `{{.${"x".repeat(long)}}}`,
    `{{${"x".repeat(long)}}}`,
    `{{template "${"x".repeat(long)}"}}`,
    `{{printf "%.1000000g %.1000000f" 0.1 1e300}}`,
    `{{/*${" *".repeat(long / 2)}*/}}`,
  ];
  for (const text of texts) {
    const result = outcome(text);
    const isFault = result.startsWith("template: ");
    assert.ok(!isFault || result.length < 3 * templateLimits.shown, `${text.slice(0, 60)}: ${result.length}`);
  }
});

test("templates that share a budget share its steps", () => {
  const budget = new Budget();
  const one = parseTemplate("demo", "{{range 20000}}{{end}}", new Map(), budget);
  let runs = 0;
  assert.throws(() => {
    for (; runs < 100; runs++) executeTemplate(one, data, new Map(), budget);
  }, /too many steps$/);
  assert.ok(runs > 0, "a single one is within the budget");
});

test("data: fields, maps in the order of their keys, lists", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["{{.Name}} {{.Count}} {{.Inner.Ratio}}", "web 3 0.5"],
    ["{{range $key, $value := .Labels}}{{$key}}={{$value}} {{end}}", "a.b=c tier=front é=ü "],
    ["{{range $i, $item := .Items}}{{$i}}:{{$item}} {{end}}", "0:one 1:two "],
    ["{{range .Items}}{{.}} {{else}}none{{end}}", "one two "],
    ['{{index .Labels "a.b"}}{{index .Labels "none"}}{{index .Items 1}} {{len .Labels}} {{len .Items}}', "ctwo 3 2"],
    ["{{slice .Items 1}} {{slice .Items 0 1}}", "[two] [one]"],
    ["{{.Labels}} {{.Items}}", "map[a.b:c tier:front é:ü] [one two]"],
    ['{{printf "%q %x" .Items .Items}}', '["one" "two"] [6f6e65 74776f]'],
    ['{{printf "%#v" .Labels}}', 'map[string]string{"a.b":"c", "tier":"front", "é":"ü"}'],
    ["{{.}}", "{web 3 map[a.b:c tier:front é:ü] [one two] {0.5}}"],
    ['{{printf "%+v" .Inner}} {{printf "%#v" .Inner}}', "{Ratio:0.5} demo.Inner{Ratio:0.5}"],
    ['{{printf "%T %T %T" . .Labels .Items}}', "*demo.Data map[string]string []string"],
    ["{{with .Inner}}{{.Ratio}}{{$.Name}}{{end}}", "0.5web"],
    ["{{if .Labels.tier}}yes{{end}}", "yes"],
    [
      ".Labels.none: {{.Labels.none}}",
      'demo:1:23: executing "demo" at <.Labels.none>: map has no entry for key "none"',
    ],
    ["{{.Name.First}}", 'demo:1:7: executing "demo" at <.Name.First>: can\'t evaluate field First in type string'],
    ["{{.Foo}}", 'demo:1:2: executing "demo" at <.Foo>: can\'t evaluate field Foo in type *demo.Data'],
    ["{{.Labels.tier 1}}", 'demo:1:9: executing "demo" at <.Labels.tier>: tier is not a method but has arguments'],
    ["{{.Name 1}}", 'demo:1:2: executing "demo" at <.Name>: Name has arguments but cannot be invoked as function'],
    [
      "{{index .Items 2}}",
      'demo:1:2: executing "demo" at <index .Items 2>: error calling index: reflect: slice index out of range',
    ],
    [
      "{{eq .Labels .Labels}}",
      'demo:1:2: executing "demo" at <eq .Labels .Labels>: error calling eq: non-comparable type ' +
        "map[a.b:c tier:front é:ü]: map[string]string",
    ],
  ];
  for (const [text, result] of cases) assert.equal(outcome(text).replace(/^template: /, ""), result, text);
});
