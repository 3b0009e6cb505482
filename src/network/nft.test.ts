import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Commands } from "./commands.ts";
import { auditTable, NftTable } from "./nft.ts";

const frame = {
  collections: {
    services: { kind: "map", type: "type ipv4_addr : verdict" },
    itself: { kind: "set", type: "type ipv4_addr . ipv4_addr" },
  },
  hooks: {
    lead: { hook: "type nat hook prerouting priority dstnat; policy accept;", rules: ["ip daddr vmap @services"] },
  },
} as const;

test("a whole table takes the place of any that is there, in one transaction", () => {
  const table = new NftTable(frame);
  table.setChain("s_1", ["meta l4proto tcp reject", "reject"]);
  table.setElement("services", "10.0.1.5", "goto s_1");
  table.setElement("itself", "10.0.1.7 . 10.0.1.7", "");
  assert.equal(
    table.render(),
    `add table ip shoal
delete table ip shoal
table ip shoal {
map services {
type ipv4_addr : verdict
elements = { 10.0.1.5 : goto s_1 }
}
set itself {
type ipv4_addr . ipv4_addr
elements = { 10.0.1.7 . 10.0.1.7 }
}
chain s_1 {
meta l4proto tcp reject
reject
}
chain lead {
type nat hook prerouting priority dstnat; policy accept;
ip daddr vmap @services
}
}
`,
  );
});

test("a change touches what has changed alone", () => {
  const table = new NftTable(frame);
  table.setChain("s_1", ["dnat to 10.0.1.7"]);
  table.setChain("s_2", ["dnat to 10.0.1.8"]);
  table.setElement("services", "10.0.1.5", "goto s_1");
  table.takeChanges();
  assert.equal(table.renderChanges(), "");
  table.setChain("s_1", ["dnat to 10.0.1.7"]);
  table.setElement("services", "10.0.1.5", undefined);
  table.setElement("services", "10.0.1.5", "goto s_1");
  assert.equal(table.renderChanges(), "", "it is as it was");
  table.setChain("s_1", ["dnat to 10.0.1.9"]);
  assert.equal(table.renderChanges(), "flush chain ip shoal s_1\nadd rule ip shoal s_1 dnat to 10.0.1.9\n");
  table.setElement("services", "10.0.1.5", undefined);
  table.setChain("s_1", undefined);
  assert.equal(
    table.renderChanges(),
    "delete element ip shoal services { 10.0.1.5 }\nflush chain ip shoal s_1\ndelete chain ip shoal s_1\n",
  );
});

/** What nft does with a script of changes; throws where it would refuse. */
class Kernel {
  readonly chains = new Map<string, string[]>();
  readonly elements = new Map<string, string>();

  run(script: string): void {
    for (const line of script.split("\n").filter((text) => text !== "")) {
      const [verb, kind, , , name = "", ...rest] = line.split(" ");
      if (kind === "element") this.#element(verb!, rest.join(" ").slice(2, -2).split(", "));
      else if (verb === "add" && kind === "chain") {
        assert.ok(!this.chains.has(name), line);
        this.chains.set(name, []);
      } else {
        const rules = this.chains.get(name);
        assert.ok(rules, line);
        if (verb === "flush") rules.length = 0;
        else if (verb === "add") rules.push(rest.join(" "));
        else {
          assert.deepEqual(rules, [], "only an empty chain goes");
          assert.ok(![...this.elements.values()].includes(`goto ${name}`), "and one that nothing leads to");
          this.chains.delete(name);
        }
      }
    }
  }

  #element(verb: string, elements: readonly string[]): void {
    for (const text of elements) {
      const [key = "", value = ""] = text.split(" : ");
      assert.equal(this.elements.has(key), verb === "delete", text);
      if (verb === "delete") this.elements.delete(key);
      else {
        assert.ok(this.chains.has(value.slice("goto ".length)), `${text} leads to a chain that is there`);
        this.elements.set(key, value);
      }
    }
  }
}

test("whatever the changes, the kernel takes them and has what it should have", () => {
  const service = fc.record({ address: fc.integer({ min: 1, max: 4 }), backends: fc.integer({ min: 0, max: 3 }) });
  const state = fc.array(fc.option(service), { minLength: 3, maxLength: 3 });
  fc.assert(
    fc.property(fc.array(state, { maxLength: 6 }), (states) => {
      const [kernel, table] = [new Kernel(), new NftTable(frame)];
      let before = new Map<string, string>();
      for (const services of states) {
        const after = new Map<string, string>();
        for (const [index, one] of services.entries()) {
          table.setChain(`s_${index}`, one ? Array(one.backends + 1).fill("accept") : undefined);
          if (one) after.set(`10.0.1.${one.address}`, `goto s_${index}`);
        }
        for (const key of before.keys()) if (!after.has(key)) table.setElement("services", key, undefined);
        for (const [key, value] of after) table.setElement("services", key, value);
        kernel.run(table.renderChanges());
        table.takeChanges();
        before = after;
        assert.deepEqual(new Map([...kernel.elements].sort()), new Map([...after].sort()));
        const chains = services.flatMap((one, index) => (one ? [[`s_${index}`, one.backends + 1] as const] : []));
        assert.deepEqual(
          [...kernel.chains].map(([name, rules]) => [name, rules.length] as const).sort(),
          chains.sort(),
        );
      }
    }),
  );
});

const listing = (elements: string, rule: string, more = "") => `table ip shoal {
	map services {
		type ipv4_addr : verdict
		elements = { ${elements} }
	}

	chain lead {
		type nat hook prerouting priority dstnat; policy accept;
		${rule}
	}
${more}}
`;

/** Lists `there` for the table itself, and `truth` for the one that is made for comparison. */
function lists(there: string, truth: string): Commands {
  return { run: async (program) => (program === "unshare" ? truth : there) };
}

test("an audit names each chain and collection that differs", async () => {
  const truth = listing("10.0.1.5 : goto s_1,\n\t\t\t     10.0.1.6 : goto s_2", "ip daddr vmap @services");
  const table = new NftTable(frame);
  assert.deepEqual(await auditTable(lists(truth, truth), table), []);
  assert.deepEqual(await auditTable(lists("", truth), table), ["map services is missing", "chain lead is missing"]);
  const other = listing("10.0.1.5 : goto s_1", "accept", "\n\tchain s_9 {\n\t}\n");
  assert.deepEqual(await auditTable(lists(other, truth), table), [
    "map services is different: it has nothing instead of 10.0.1.6 : goto s_2",
    "chain lead is different: it has accept instead of ip daddr vmap @services",
    "chain s_9 should not be there",
  ]);
});
