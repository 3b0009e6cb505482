import assert from "node:assert/strict";
import { test } from "node:test";
import type { StoredObject } from "../model/types.ts";
import { Filters, parseFilters } from "./filters.ts";
import { lookup } from "./lookup.ts";

type Named = StoredObject & { Name: string };

function among(names: Record<string, string>) {
  const objects = Object.entries(names).map(
    ([ID, Name]): Named => ({ ID, Name, Version: { Index: 1 }, CreatedAt: "", UpdatedAt: "" }),
  );
  return (text: string) =>
    lookup("service", text, {
      get: (id) => objects.find(({ ID }) => ID === id),
      named: (name) => objects.filter(({ Name }) => Name === name),
      all: () => objects,
    }).ID;
}

test("a full id wins over a name, a name over the beginning of an id", () => {
  const find = among({ abc1: "web", abc2: "abc1", def3: "abc" });
  assert.equal(find("abc1"), "abc1");
  assert.equal(find("abc"), "def3");
  assert.equal(find("web"), "abc1");
  assert.equal(find("d"), "def3");
});

test("several matches and none are told apart", () => {
  const find = among({ abc1: "web", abc2: "db", def3: "db" });
  assert.throws(() => find("ab"), { code: "InvalidArgument", message: "service ab is ambiguous (2 matches found)" });
  assert.throws(() => find("db"), { code: "InvalidArgument", message: "service db is ambiguous (2 matches found)" });
  assert.throws(() => find("x"), { code: "NotFound", message: "service x not found" });
  assert.throws(() => find(""), { code: "NotFound", message: "service  not found" });
});

test("filters are read in both forms", () => {
  for (const text of ['{"name":{"web":true,"off":false}}', '{"name":["web"]}']) {
    const filters = parseFilters(text, ["name"]);
    assert.deepEqual(filters.values("name"), ["web"]);
    assert.equal(filters.matchesPrefix("name", "web-2"), true);
    assert.equal(filters.matches("name", "web-2"), false);
    assert.equal(filters.matches("id", "anything"), true);
  }
  for (const text of [null, "", "null", "{}"]) assert.equal(parseFilters(text, []).has("name"), false);
});

test("filters that are none are refused", () => {
  for (const text of ["{", "[]", "1", '{"name":"web"}', '{"name":[1]}', '{"name":{"web":1}}']) {
    assert.throws(() => parseFilters(text, ["name"]), { message: "invalid filter" }, text);
  }
  assert.throws(() => parseFilters('{"nmae":["web"]}', ["name"]), { message: "invalid filter 'nmae'" });
});

test("labels must all match; a label without a value matches any", () => {
  const filters = (...label: string[]) => new Filters(new Map([["label", label]]));
  assert.equal(filters("a", "b=2").matchesLabels("label", { a: "1", b: "2" }), true);
  assert.equal(filters("a=").matchesLabels("label", { a: "1" }), true);
  assert.equal(filters("a", "c").matchesLabels("label", { a: "1" }), false);
  assert.equal(filters("b=3").matchesLabels("label", { b: "2" }), false);
  assert.equal(filters("toString").matchesLabels("label", {}), false);
  assert.equal(filters("a").matchesLabels("label", undefined), false);
  assert.equal(filters().matchesLabels("label", undefined), true);
});

test("a yes/no filter has one value and is one of four words", () => {
  const flag = (...up: string[]) => new Filters(new Map([["up", up]])).flag("up");
  assert.equal(flag(), undefined);
  assert.equal(flag("true"), true);
  assert.equal(flag("0"), false);
  assert.throws(() => flag("yes"), { message: "invalid filter 'up=[yes]'" });
  assert.throws(() => flag("true", "false"), { message: "invalid filter 'up=[true false]'" });
});
