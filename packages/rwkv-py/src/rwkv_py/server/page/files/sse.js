/** Server-sent events, as a stream of bytes brings them. */

/** A stream that ended before it said so: the server or the connection went away. */
export class Lost extends Error {}

/**
 * Read the events of a response.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<any>} the JSON of each, up to `[DONE]`
 * @throws {Lost} it ended before that
 */
export async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    try {
        while (true) {
            const { done, value } = await reader.read();
            if (done) throw new Lost("stream: expected [DONE] at its end, got none");
            text += value;
            const whole = text.split(/\r?\n\r?\n/);
            text = whole.pop();
            for (const event of whole) {
                const data = event
                    .split(/\r?\n/)
                    .filter((line) => line.startsWith("data:"))
                    .map((line) => line.slice(5).trimStart())
                    .join("\n");
                if (data === "[DONE]") return;
                if (data) yield JSON.parse(data);
            }
        }
    } catch (error) {
        if (error instanceof TypeError) throw new Lost(error.message); // what browsers make of a lost connection
        throw error;
    } finally {
        reader.cancel().catch(() => {});
    }
}
