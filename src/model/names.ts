/** Names for services that were created without one: `quiet_harbour`. Swarm's form, our own words. */
import type { Random } from "../lib/random.ts";

const adjectives = words(`
  amber ample autumn balmy bold brave breezy bright brisk bronze calm clear clever coastal cobalt copper coral cosy
  crimson crisp curious dapper daring deep distant eager early earnest fair fleet fond frosty gentle gilded glad
  golden grand hardy hazel humble ivory jolly keen kind lively lucid lunar mellow merry mild misty modest narrow
  nimble noble northern opal patient plucky polite proud quick quiet rapid ready robust rustic sandy serene sharp
  silver sincere smooth snowy solar spry steady still sturdy sunny swift tidal tidy true velvet vivid warm wide windy
  wise young
`);

const nouns = words(`
  anchovy anemone angler atoll barnacle bay beacon bream buoy capelin clam cockle cod conch cove crab current
  cuttlefish delta dolphin dory eddy eel estuary ferry fjord flounder gannet grouper gull guppy haddock halibut
  harbour heron herring inlet island jetty kelp kestrel lagoon lamprey lantern limpet lobster mackerel manatee marlin
  minnow mullet mussel narwhal nautilus ocean orca osprey otter oyster pearl pelican perch petrel pier pike plaice
  porpoise prawn puffin quay ray reef ripple roach salmon sandbar sardine scallop seal shallows shell shore shrimp
  skate smelt snapper sole spray sprat squid strait sturgeon tern tide trout tuna turbot turtle urchin walrus wave
  whale whiting wrasse
`);

/** A name that `taken` does not know: of two words, with a number behind them once those run short. */
export function randomName(random: Random, taken: (name: string) => boolean): string {
  const tries = 8;
  for (let attempt = 0; attempt < tries; attempt++) {
    const name = twoWords(random);
    if (!taken(name)) return name;
  }
  for (let number = 1; ; number++) {
    const name = `${twoWords(random)}${number}`;
    if (!taken(name)) return name;
  }
}

function twoWords(random: Random): string {
  return `${pick(random, adjectives)}_${pick(random, nouns)}`;
}

function pick(random: Random, list: readonly string[]): string {
  return list[Math.floor(random.float() * list.length)] ?? list[0]!;
}

function words(text: string): readonly string[] {
  return text.trim().split(/\s+/);
}
