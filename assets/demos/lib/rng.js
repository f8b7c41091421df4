/**
 * Seeded random numbers: the same seed gives the same picture in every browser.
 */

/** The generator sfc32 (PractRand's author, Chris Doty-Humphrey), with a period of about 2^128. */
export class Random {
  /** @param {number} seed a whole number */
  constructor(seed) {
    this.a = 0;
    this.b = 0;
    this.c = seed >>> 0;
    this.counter = 1;
    this.spare = null;
    for (let i = 0; i < 16; i++) this.bits();
  }

  /** @returns {number} 32 random bits, as a whole number from 0 to 2^32 - 1 */
  bits() {
    const sum = (this.a + this.b + this.counter) >>> 0;
    this.counter = (this.counter + 1) >>> 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) >>> 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) >>> 0;
    return sum;
  }

  /** @returns {number} evenly spread over (0, 1), never 0 nor 1 */
  uniform() {
    return (this.bits() + 0.5) / 4294967296;
  }

  /** @returns {number} a whole number from 0 to n - 1 */
  integer(n) {
    return Math.floor(this.uniform() * n);
  }

  /** @returns {number} standard normal: Box and Muller make two at a time, and one waits */
  normal() {
    if (this.spare !== null) {
      const value = this.spare;
      this.spare = null;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  /** @returns {Float64Array} `count` standard normal numbers (a cloud of n points takes 2 n) */
  normals(count) {
    return Float64Array.from({ length: count }, () => this.normal());
  }
}

/**
 * Noise for a sampler, as `ddim` and `ddpm` take it.
 * @param {Random} random
 * @returns {(x: Float64Array) => Float64Array}
 */
export function noiseFrom(random) {
  return (x) => random.normals(x.length);
}
