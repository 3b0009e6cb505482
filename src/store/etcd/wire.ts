/** Making etcd's messages, and reading the store's head. */
import { create } from "@bufbuild/protobuf";
import { ShoalError } from "../../lib/errors.ts";
import {
  type Compare,
  Compare_CompareResult,
  Compare_CompareTarget,
  CompareSchema,
  DeleteRangeRequestSchema,
  PutRequestSchema,
  type RequestOp,
  RequestOpSchema,
  type TxnRequest,
  TxnRequestSchema,
} from "./gen/etcd_pb.js";

const format = 1;

export function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return Buffer.from(text);
}

export function encodeHead(offset: number): Uint8Array<ArrayBuffer> {
  return bytesOf(JSON.stringify({ format, offset }));
}

/** DataLoss for a store that this version cannot read. */
export function decodeHead(value: Uint8Array): { readonly offset: number } {
  let head: { format: number; offset: number };
  try {
    head = JSON.parse(Buffer.from(value).toString());
  } catch (cause) {
    throw new ShoalError("DataLoss", "the store's head is damaged", { cause });
  }
  if (head.format !== format) {
    throw new ShoalError("DataLoss", `the store has format ${head.format}, this version reads ${format}`);
  }
  return head;
}

export function txn(compare: Compare[], success: RequestOp[]): TxnRequest {
  const request = create(TxnRequestSchema);
  request.compare = compare;
  request.success = success;
  return request;
}

/** The key was last written at that revision of etcd's; 0: it does not exist. */
export function modIs(key: string, revision: number): Compare {
  const compare = create(CompareSchema);
  compare.result = Compare_CompareResult.EQUAL;
  compare.target = Compare_CompareTarget.MOD;
  compare.key = bytesOf(key);
  compare.targetUnion = { case: "modRevision", value: BigInt(revision) };
  return compare;
}

export function putOp(key: string, value: Uint8Array): RequestOp {
  const put = create(PutRequestSchema);
  put.key = bytesOf(key);
  put.value = value as Uint8Array<ArrayBuffer>;
  return op({ case: "requestPut", value: put });
}

/** @param end deletes all keys from `key` up to this one, which is left */
export function deleteOp(key: string, end = ""): RequestOp {
  const remove = create(DeleteRangeRequestSchema);
  remove.key = bytesOf(key);
  remove.rangeEnd = bytesOf(end);
  return op({ case: "requestDeleteRange", value: remove });
}

function op(request: RequestOp["request"]): RequestOp {
  const made = create(RequestOpSchema);
  made.request = request;
  return made;
}
