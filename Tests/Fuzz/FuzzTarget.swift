import Model

enum FuzzTarget: String, CaseIterable, CustomStringConvertible {
  case manifest, tar, layer, dns, frame, command, challenge, word, bundle
  case environmentFile = "environment-file"
  case imageDocument = "image-document"
  case apiRequest = "api-request"
  case dockerfile
  case ignoreRules = "ignore-rules"
  case answerCache = "answer-cache"
  case netlink

  var description: String { rawValue }

  func feed(_ bytes: [UInt8]) {
    #if DEBUG
      switch self {
      case .manifest: feedManifest(bytes)
      case .environmentFile: feedEnvironmentFile(bytes)
      case .tar: feedTar(bytes)
      case .layer: feedLayer(bytes)
      case .imageDocument: feedImageDocument(bytes)
      case .challenge: feedChallenge(bytes)
      case .dns: feedDNS(bytes)
      case .frame: feedFrame(bytes)
      case .command: feedCommand(bytes)
      case .apiRequest: feedAPIRequest(bytes)
      case .word: feedWord(bytes)
      case .bundle: feedBundle(bytes)
      case .dockerfile: feedDockerfile(bytes)
      case .ignoreRules: feedIgnoreRules(bytes)
      case .answerCache: feedAnswerCache(bytes)
      case .netlink: feedNetlink(bytes)
      }
    #else
      fatalError("a release build does not let tests in: build fuzz for debug")
    #endif
  }
}

/// A promise that does not hold.
func promise(_ holds: Bool, _ what: @autoclosure () -> String) { if !holds { fatalError("promise broken: \(what())") } }
