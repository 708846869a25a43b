// Validates the AsyncAPI documents on stdin, a JSON object by name. Prints the errors of each, by name.
// One process for all of them: loading the parser takes most of the time.
const { Parser } = require("@asyncapi/parser");

let text = "";
process.stdin.setEncoding("utf8");
process.stdin.on("data", (chunk) => (text += chunk));
process.stdin.on("end", async () => {
  const errors = {};
  for (const [name, document] of Object.entries(JSON.parse(text))) {
    const found = await new Parser().validate(document);
    errors[name] = found
      .filter((one) => one.severity === 0)
      .map((one) => `${one.path.join(".")}: ${one.message}`);
  }
  console.log(JSON.stringify(errors));
});
