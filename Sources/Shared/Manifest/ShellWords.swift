/// Splits a command line into words by the shell's quotes; no expansion. As Compose's scalar `command` and `entrypoint`.
func shellWords(_ line: String) -> [String]? {
  var words: [String] = []
  var word = ""
  var inWord = false
  var quote: Character?
  var escaped = false
  for character in line {
    if escaped {
      if quote == "\"", character != "\"", character != "\\", character != "$", character != "`", character != "\n" { word.append("\\") }
      word.append(character)
      escaped = false
    } else if let open = quote {
      if character == open {
        quote = nil
      } else if character == "\\", open == "\"" {
        escaped = true
      } else {
        word.append(character)
      }
    } else if character == "'" || character == "\"" {
      quote = character
      inWord = true
    } else if character == "\\" {
      escaped = true
      inWord = true
    } else if character.isWhitespace {
      if inWord { words.append(word) }
      word = ""
      inWord = false
    } else {
      word.append(character)
      inWord = true
    }
  }
  guard quote == nil, !escaped else { return nil }
  if inWord { words.append(word) }
  return words
}
