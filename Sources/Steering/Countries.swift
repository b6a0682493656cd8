// Where countries are, for a header that says only `CF-IPCountry: DE`: ISO 3166-1 codes, and a point near the middle of where people
// live, in whole degrees. A first hop is chosen between continents and regions; a degree more or less changes nothing.

/// Points by country.
public enum Countries {
    /// A point in the country with this two-letter code, in either case; nil for one that is none, such as `XX` (unknown) or `T1` (Tor).
    public static func place(of code: some StringProtocol) -> Place? {
        let bytes = Array(code.utf8)
        guard bytes.count == 2 else { return nil }
        let letters = bytes.map { $0 & 0xDF }
        guard letters.allSatisfy({ (0x41...0x5A).contains($0) }), zip(bytes, letters).allSatisfy({ $0 == $1 || $0 == $1 | 0x20 }) else {
            return nil
        }
        return places[UInt16(letters[0]) << 8 | UInt16(letters[1])]
    }

    /// How many countries are known.
    public static var count: Int { places.count }

    private static let places: [UInt16: Place] = {
        var places: [UInt16: Place] = [:]
        for entry in table.split(whereSeparator: \.isWhitespace) {
            let code = Array(entry.utf8.prefix(2))
            let degrees = entry.dropFirst(2).split(separator: ",")
            guard degrees.count == 2, let place = Place(latitude: degrees[0], longitude: degrees[1]) else {
                preconditionFailure("\(entry) in the table of countries")
            }
            places[UInt16(code[0]) << 8 | UInt16(code[1])] = place
        }
        return places
    }()

    private static let table = """
        AD42,1 AE24,54 AF34,67 AG17,-62 AI18,-63 AL41,20 AM40,45 AO-10,15 AQ-78,167 AR-34,-61 AS-14,-171 AT48,15 AU-33,148 AW12,-70
        AX60,20 AZ40,48 BA44,18 BB13,-60 BD24,90 BE51,4 BF12,-2 BG43,25 BH26,51 BI-3,30 BJ7,2 BL18,-63 BM32,-65 BN5,115 BO-17,-66
        BQ12,-68 BR-20,-47 BS25,-77 BT27,90 BV-54,3 BW-24,26 BY54,28 BZ17,-89 CA46,-79 CC-12,97 CD-4,20 CF5,19 CG-4,15 CH47,8 CI6,-5
        CK-21,-160 CL-33,-71 CM4,11 CN32,114 CO5,-74 CR10,-84 CU23,-81 CV15,-24 CW12,-69 CX-10,106 CY35,33 CZ50,15 DE51,9 DJ12,43 DK56,11
        DM15,-61 DO19,-70 DZ36,3 EC-1,-79 EE59,25 EG30,31 EH27,-13 ER15,39 ES40,-3 ET9,39 FI61,25 FJ-18,178 FK-52,-58 FM7,158 FO62,-7
        FR47,2 GA0,10 GB52,-1 GD12,-62 GE42,44 GF5,-52 GG49,-3 GH6,-1 GI36,-5 GL64,-52 GM13,-16 GN10,-13 GP16,-62 GQ4,9 GR38,24
        GS-54,-37 GT15,-91 GU13,145 GW12,-16 GY7,-58 HK22,114 HM-53,73 HN14,-87 HR45,16 HT19,-72 HU47,19 ID-7,110 IE53,-7 IL32,35 IM54,-5
        IN22,78 IO-7,72 IQ33,44 IR35,51 IS64,-22 IT43,12 JE49,-2 JM18,-77 JO32,36 JP36,138 KE-1,37 KG42,74 KH12,105 KI1,173 KM-12,43
        KN17,-63 KP39,126 KR37,127 KW29,48 KY19,-81 KZ47,71 LA18,103 LB34,36 LC14,-61 LI47,10 LK7,80 LR6,-11 LS-29,28 LT55,24 LU50,6
        LV57,24 LY32,14 MA33,-7 MC44,7 MD47,29 ME42,19 MF18,-63 MG-19,47 MH7,171 MK42,21 ML13,-8 MM20,96 MN48,107 MO22,114 MP15,146
        MQ15,-61 MR18,-15 MS17,-62 MT36,14 MU-20,57 MV4,73 MW-14,34 MX21,-101 MY3,102 MZ-20,35 NA-22,17 NC-22,166 NE14,5 NF-29,168 NG8,6
        NI12,-86 NL52,5 NO60,10 NP28,85 NR-1,167 NU-19,-170 NZ-39,175 OM23,58 PA9,-80 PE-11,-77 PF-18,-150 PG-8,146 PH13,122 PK31,72
        PL52,19 PM47,-56 PN-25,-130 PR18,-66 PS32,35 PT40,-8 PW7,134 PY-25,-57 QA25,51 RE-21,56 RO45,26 RS44,21 RU56,42 RW-2,30 SA24,45
        SB-9,160 SC-5,55 SD15,32 SE59,16 SG1,104 SH-16,-6 SI46,15 SJ78,16 SK48,19 SL8,-13 SM44,12 SN15,-17 SO4,45 SR6,-55 SS6,31 ST0,7
        SV14,-89 SX18,-63 SY34,37 SZ-26,31 TC22,-72 TD12,16 TF-49,69 TG7,1 TH15,101 TJ38,69 TK-9,-172 TL-9,126 TM38,59 TN36,10 TO-21,-175
        TR39,33 TT11,-61 TV-9,179 TW24,121 TZ-6,36 UA49,31 UG1,32 UM19,167 US39,-93 UY-34,-56 UZ41,67 VA42,12 VC13,-61 VE10,-67 VG18,-65
        VI18,-65 VN16,106 VU-17,168 WF-13,-176 WS-14,-172 XK43,21 YE15,45 YT-13,45 ZA-28,28 ZM-15,28 ZW-18,31
        """
}
