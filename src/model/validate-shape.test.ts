import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isShoalError } from "../lib/errors.ts";
import { nodeSpecShape, serviceSpecShape } from "./service-shape.ts";
import { conform } from "./validate-shape.ts";

const conformService = (body: unknown) => conform(body, serviceSpecShape);

test("what is well-typed stays the very same objects", () => {
  const spec = { Name: "web", Labels: { a: "b" }, TaskTemplate: { ContainerSpec: { Image: "bb:1", Args: ["x"] } } };
  const text = JSON.stringify(spec);
  assert.equal(conformService(spec), spec);
  assert.equal(JSON.stringify(spec), text);
});

test("member names match in any case, and are stored in their own", () => {
  const sent = {
    name: "web",
    TaskTemplate: { ContainerSpec: { Image: "i", HealthCheck: { test: ["NONE"] }, tty: true } },
  };
  const kept = {
    Name: "web",
    TaskTemplate: { ContainerSpec: { Image: "i", Healthcheck: { Test: ["NONE"] }, TTY: true } },
  };
  assert.equal(JSON.stringify(conformService(sent)), JSON.stringify(kept));
});

test("unknown members and null ones are dropped, wherever they are; names of labels are the user's", () => {
  const sent = JSON.parse(
    '{"Name":"web","Foo":1,"EndpointSpec":null,"Labels":{"__proto__":"x","name":"y","n":null},"TaskTemplate":{"Networks":null,"Bar":{},"ContainerSpec":{"Image":"i","Env":["A",null],"constructor":{}}}}',
  );
  assert.equal(
    JSON.stringify(conformService(sent)),
    '{"Name":"web","Labels":{"__proto__":"x","name":"y","n":""},"TaskTemplate":{"ContainerSpec":{"Image":"i","Env":["A",""]}}}',
  );
  assert.equal(conform(null, serviceSpecShape), undefined);
});

test("half of a surrogate pair becomes U+FFFD, in texts and in names of labels", () => {
  const sent = JSON.parse('{"Name":"\\ud800","Labels":{"\\udc00":"a\\ud800b","ok":"\\ud83d\\ude00"}}');
  assert.deepEqual(conformService(sent), { Name: "\ufffd", Labels: { "\ufffd": "a\ufffdb", ok: "😀" } });
});

test("a number that a float32 has not is refused", () => {
  const asked = (MaxFailureRatio: unknown) => conformService({ UpdateConfig: { MaxFailureRatio } });
  assert.deepEqual(asked(3e38), { UpdateConfig: { MaxFailureRatio: 3e38 } });
  for (const ratio of [1e39, Number.POSITIVE_INFINITY])
    assert.throws(() => asked(ratio), /MaxFailureRatio of type float32/);
});

test("wrong types are refused in the words of Go's decoder", () => {
  const container = (more: object) => ({ TaskTemplate: { ContainerSpec: more } });
  const inContainer = "Go struct field ContainerSpec.TaskTemplate.ContainerSpec";
  const cases: [body: unknown, rest: string][] = [
    [[], "array into Go value of type swarm.ServiceSpec"],
    ["x", "string into Go value of type swarm.ServiceSpec"],
    [{ Name: 5 }, "number into Go struct field ServiceSpec.Name of type string"],
    [container({ Image: 7 }), `number into ${inContainer}.Image of type string`],
    [container({ Env: "A" }), `string into ${inContainer}.Env of type []string`],
    [container({ Env: [1] }), `number into ${inContainer}.Env of type string`],
    [container({ Labels: { a: 1 } }), `number into ${inContainer}.Labels of type string`],
    [container({ Labels: [] }), `array into ${inContainer}.Labels of type map[string]string`],
    [
      container({ Mounts: [{ Target: 1 }] }),
      "number into Go struct field Mount.TaskTemplate.ContainerSpec.Mounts.Target of type string",
    ],
    [container({ StopGracePeriod: 1.5 }), `number 1.5 into ${inContainer}.StopGracePeriod of type time.Duration`],
    [container({ StopGracePeriod: "10s" }), `string into ${inContainer}.StopGracePeriod of type time.Duration`],
    [container({ TTY: "yes" }), `string into ${inContainer}.TTY of type bool`],
    [
      { Mode: { Replicated: { Replicas: -1 } } },
      "number -1 into Go struct field ReplicatedService.Mode.Replicated.Replicas of type uint64",
    ],
    [
      { Mode: { Replicated: { Replicas: 1e300 } } },
      "number 1e+300 into Go struct field ReplicatedService.Mode.Replicated.Replicas of type uint64",
    ],
    [{ Mode: "replicated" }, "string into Go struct field ServiceSpec.Mode of type swarm.ServiceMode"],
    [
      { EndpointSpec: { Ports: [{ TargetPort: -1 }] } },
      "number -1 into Go struct field PortConfig.EndpointSpec.Ports.TargetPort of type uint32",
    ],
  ];
  for (const [body, rest] of cases) {
    assert.throws(
      () => conformService(body),
      (error) => isShoalError(error, "InvalidArgument") && error.message === `json: cannot unmarshal ${rest}`,
      rest,
    );
  }
});

test("whatever comes is refused or put right for good, and nothing else is thrown", () => {
  const names = [...serviceSpecShape.members.keys(), "Role", "name", "__proto__", "x"];
  const json = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      fc.constantFrom(null, true, "", "a", 0, -1, 1.5, 1e30),
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom(...names, "ContainerSpec", "Mounts", "Replicated", "Ports"), tie("value")),
    ),
  })).value;
  fc.assert(
    fc.property(json, fc.constantFrom(serviceSpecShape, nodeSpecShape), (body, shape) => {
      let once: unknown;
      try {
        once = conform(JSON.parse(JSON.stringify(body)), shape);
      } catch (error) {
        assert.ok(isShoalError(error, "InvalidArgument"));
        return;
      }
      const text = JSON.stringify(once);
      assert.equal(JSON.stringify(conform(once ?? null, shape)), text);
      assert.doesNotMatch(text ?? "", /null/);
    }),
    { numRuns: 300 },
  );
});
